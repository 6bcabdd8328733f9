"""The node's key: encrypted at rest, opened by its passphrase only, never shown."""

from __future__ import annotations

import json
import stat
import traceback
from pathlib import Path

import pytest
from eth_account import Account

from pandacea import keys
from pandacea.errors import BadConfig
from pandacea_sdk.protocol.hashing import KeySigner, eip191_digest, recover_address

PRIVATE, PASSPHRASE = "0x" + "5a" * 32, "correct horse battery"


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One keystore for all: scrypt takes its second."""
    file = tmp_path_factory.mktemp("keys") / "operator.json"
    keys.import_key(file, PRIVATE, PASSPHRASE)
    return file


def test_a_key_comes_back_with_its_passphrase(keystore: Path) -> None:
    """What was kept signs again, as itself, receipts and transactions alike."""
    signer = keys.unlock_keystore(keystore, PASSPHRASE)
    assert signer.address == KeySigner(PRIVATE).address == keys.keystore_address(keystore)
    digest = eip191_digest(b"hello")
    assert recover_address(digest, signer.sign_digest(digest)) == signer.address
    assert signer.account().address.lower() == signer.address


def test_another_wallet_opens_the_file(keystore: Path) -> None:
    """It is Web3 Secret Storage v3: eth-account, and so geth, reads it."""
    document = json.loads(keystore.read_text())
    assert document["version"] == 3
    assert Account.decrypt(document, PASSPHRASE).hex() == PRIVATE.removeprefix("0x")


def test_nothing_of_the_key_lies_in_the_clear(keystore: Path) -> None:
    """The file is private and encrypted; neither signer nor error shows key or passphrase."""
    assert stat.S_IMODE(keystore.stat().st_mode) == 0o600
    assert "5a5a5a" not in keystore.read_text()
    assert "5a5a5a" not in repr(keys.unlock_keystore(keystore, PASSPHRASE))
    with pytest.raises(BadConfig) as caught:
        keys.unlock_keystore(keystore, "a wrong passphrase")
    shown = "".join(traceback.format_exception(caught.value))
    assert "does not open" in shown
    assert "a wrong passphrase" not in str(caught.value)


def test_a_new_key_is_random_and_never_overwrites(tmp_path: Path) -> None:
    """Two new keys differ; an existing file is left alone."""
    one, two = (keys.create_keystore(tmp_path / name, PASSPHRASE) for name in ("one.json", "two.json"))
    assert one != two
    before = (tmp_path / "one.json").read_text()
    with pytest.raises(BadConfig, match="never overwritten"):
        keys.create_keystore(tmp_path / "one.json", PASSPHRASE)
    assert (tmp_path / "one.json").read_text() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"crypto": 1, "version": 3}', '{"crypto": {}, "version": 2}'])
def test_what_is_no_keystore_is_named(tmp_path: Path, content: str) -> None:
    """Damaged or foreign files are one sentence, never an exception of a library."""
    file = tmp_path / "bad.json"
    file.write_text(content)
    for attempt in (lambda: keys.keystore_address(file), lambda: keys.unlock_keystore(file, PASSPHRASE)):
        with pytest.raises(BadConfig, match=r"bad\.json"):
            attempt()
    with pytest.raises(BadConfig, match="does not exist"):
        keys.unlock_keystore(tmp_path / "none.json", PASSPHRASE)


def test_bad_keys_and_short_passphrases_are_refused_without_repeating_them(tmp_path: Path) -> None:
    """Neither ends in a message or a file."""
    with pytest.raises(BadConfig) as caught:
        keys.import_key(tmp_path / "k.json", "0x1234567890", PASSPHRASE)
    assert "1234567890" not in str(caught.value)
    with pytest.raises(BadConfig, match="at least 8"):
        keys.import_key(tmp_path / "k.json", PRIVATE, "short")
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_file_must_be_private(tmp_path: Path) -> None:
    """Readable by others, missing, empty or a folder: refused with what to do. The first line counts."""
    file = tmp_path / "passphrase"
    file.write_text("first line\nsecond\n")
    file.chmod(0o640)
    with pytest.raises(BadConfig, match="chmod 600"):
        keys.read_passphrase(file)
    file.chmod(0o600)
    assert keys.read_passphrase(file) == "first line"
    file.write_text("\n")
    with pytest.raises(BadConfig, match="No passphrase"):
        keys.read_passphrase(file)
    for other in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadConfig, match="passphrase file"):
            keys.read_passphrase(other)
