"""`pandacea keys`: the address alone on standard output, the key from a pipe or a file, never from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea import keys
from pandacea_sdk.chain import LeaseChain
from pandacea_sdk.credentials import load_account
from pandacea_sdk.errors import UsageError
from pandacea_sdk.protocol.addresses import to_checksum_address
from pandacea_sdk.protocol.hashing import KeySigner
from tests.journeys.conftest import pandacea

PRIVATE = "5a" * 32
ADDRESS = to_checksum_address(KeySigner(PRIVATE).address)


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    file = tmp_path / "passphrase"
    file.touch(mode=0o600)
    file.write_text("only for tests\n")
    return str(file)


def test_a_new_key_is_named_with_its_checksum_and_its_purpose(tmp_path: Path, passphrase: str) -> None:
    """A script takes the address from standard output; a person reads beside it what it is for."""
    done = pandacea("keys", "create", str(tmp_path / "k.json"), "--passphrase-file", passphrase)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == to_checksum_address(keys.keystore_address(tmp_path / "k.json"))
    assert "approves leases, commits results and signs receipts" in done.stderr
    assert "needs a little ether" in done.stderr
    assert pandacea("keys", "address", str(tmp_path / "k.json")).stdout == done.stdout


def test_a_key_is_imported_from_a_pipe_and_from_a_keystore(tmp_path: Path, passphrase: str) -> None:
    """The same key under a passphrase of one's own; it is in no message."""
    first, second = str(tmp_path / "one.json"), str(tmp_path / "two.json")
    piped = pandacea("keys", "import", first, "--passphrase-file", passphrase, said=f"0x{PRIVATE}\n")
    copied = pandacea(
        *("keys", "import", second, "--passphrase-file", passphrase, "--keystore", first, "--keystore-passphrase-file", passphrase)
    )
    for done in (piped, copied):
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == ADDRESS
        assert PRIVATE not in done.stdout + done.stderr


def test_what_is_no_key_is_refused_without_repeating_it(tmp_path: Path, passphrase: str) -> None:
    """Nothing is written; nor does the command take a key among its arguments."""
    done = pandacea("keys", "import", str(tmp_path / "k.json"), "--passphrase-file", passphrase, said="5a5a5a\n")
    assert done.returncode == 2
    assert "not a private key" in done.stderr
    assert "5a5a5a" not in done.stderr
    assert not (tmp_path / "k.json").exists()
    assert pandacea("keys", "import", str(tmp_path / "k.json"), PRIVATE, "--passphrase-file", passphrase).returncode == 2


def test_a_keystores_name_as_a_key_says_how_to_open_it(tmp_path: Path) -> None:
    """And what it says is what works."""
    with pytest.raises(UsageError, match="load_account"):
        LeaseChain("http://127.0.0.1:1", "0x" + "12" * 20, key="keys/operator.json")
    keys.import_key(tmp_path / "k.json", PRIVATE, "only for tests")
    account = load_account(tmp_path / "k.json", "only for tests")
    assert LeaseChain("http://127.0.0.1:1", "0x" + "12" * 20, key=account).address == ADDRESS.lower()
