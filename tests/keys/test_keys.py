"""The keystore: encrypted, never overwritten, never open to others, never in a message."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pandacea import keys
from pandacea.errors import BadConfig

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(autouse=True)
def _light_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost is scrypt's to prove; here only its being used matters."""
    monkeypatch.setattr(keys, "SCRYPT_WORK", 1 << 12)


def test_a_created_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    """The address printed at creation is the one that signs."""
    path = tmp_path / "keys" / "operator.json"
    address = keys.create(path, PASSPHRASE)
    assert keys.unlock(path, PASSPHRASE).address.lower() == address == keys.address(path)
    with pytest.raises(BadConfig, match="does not open") as caught:
        keys.unlock(path, "wrong")
    assert "wrong" not in str(caught.value)


def test_the_file_is_for_its_owner_and_holds_no_key(tmp_path: Path) -> None:
    """Mode 600, scrypt, and not a trace of the private key."""
    path = tmp_path / "operator.json"
    keys.import_key(path, "11" * 32, PASSPHRASE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "11" * 32 not in path.read_text()
    assert json.loads(path.read_text())["crypto"]["kdf"] == "scrypt"


def test_a_keystore_is_never_overwritten(tmp_path: Path) -> None:
    """The key of an approved lease must not vanish by a typing mistake."""
    path = tmp_path / "operator.json"
    keys.create(path, PASSPHRASE)
    with pytest.raises(BadConfig, match="exists already"):
        keys.create(path, PASSPHRASE)


def test_a_keystore_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    path = tmp_path / "operator.json"
    keys.create(path, PASSPHRASE)
    path.chmod(0o640)
    with pytest.raises(BadConfig, match="chmod 600"):
        keys.unlock(path, PASSPHRASE)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    """What it is instead, and what to run."""
    with pytest.raises(BadConfig, match="pandacea keys create"):
        keys.unlock(tmp_path / "none.json", PASSPHRASE)
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(BadConfig, match="no Web3 Secret Storage keystore"):
        keys.unlock(other, PASSPHRASE)


def test_an_unlocked_key_does_not_show_itself(tmp_path: Path) -> None:
    """Not in a representation, which is what reaches a log."""
    path = tmp_path / "operator.json"
    keys.import_key(path, "11" * 32, PASSPHRASE)
    assert "1111" not in repr(keys.unlock(path, PASSPHRASE))
