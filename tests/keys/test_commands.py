"""`pandacea keys`: the address alone on standard output, the key from a prompt, a pipe or a file, never from the command line."""

from __future__ import annotations

import json
import os
import pty
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from eth_keyfile.keyfile import create_keyfile_json

from pandacea import keys
from pandacea_sdk.chain import LeaseChain
from pandacea_sdk.credentials import load_account
from pandacea_sdk.errors import UsageError
from pandacea_sdk.protocol.addresses import to_checksum_address
from pandacea_sdk.protocol.hashing import KeySigner
from tests.journeys.conftest import pandacea
from tests.prerequisites import ROOT

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


def import_at_terminal(keystore: Path, passphrase: str, typed: str) -> tuple[int, str]:
    """Run `pandacea keys import` on a terminal of its own and type; returns the exit status and all that the terminal showed."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        os.environ["PYTHONPATH"] = str(ROOT / "daemon")
        arguments = ["keys", "import", str(keystore), "--passphrase-file", passphrase]
        os.execv(sys.executable, [sys.executable, "-m", "pandacea", *arguments])
    shown = b""
    try:
        while b"not shown" not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, typed.encode() + b"\n")
        with suppress(OSError):  # EIO: the other side has ended
            while chunk := os.read(terminal, 4096):
                shown += chunk
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_a_key_typed_at_the_terminal_is_not_shown(tmp_path: Path, passphrase: str) -> None:
    """Neither the screen nor its history has it; the file is the node's alone and opens as one that the node made."""
    status, shown = import_at_terminal(tmp_path / "k.json", passphrase, f"0x{PRIVATE}")
    assert status == 0, shown
    assert ADDRESS in shown
    assert PRIVATE[:8] not in shown
    keys.require_private(tmp_path / "k.json")
    assert (tmp_path / "k.json").stat().st_mode & 0o777 == 0o600
    assert keys.unlock_keystore(tmp_path / "k.json", "only for tests").address == ADDRESS.lower()


def test_another_wallets_keystore_is_imported_and_nothing_is_overwritten(tmp_path: Path, passphrase: str) -> None:
    """PBKDF2, as some wallets write it, becomes the node's own form; a file that is there stays as it is."""
    foreign, target = tmp_path / "wallet.json", tmp_path / "k.json"
    foreign.write_text(json.dumps(create_keyfile_json(bytes.fromhex(PRIVATE), b"the wallet's", kdf="pbkdf2", iterations=1000)))
    command = ("keys", "import", str(target), "--passphrase-file", passphrase, "--keystore", str(foreign))
    wrong = pandacea(*command, said="not the wallet's\n")
    assert wrong.returncode == 2
    assert "does not open" in wrong.stderr
    assert not target.exists()
    done = pandacea(*command, said="the wallet's\n")
    assert (done.returncode, done.stdout.strip()) == (0, ADDRESS)
    assert json.loads(target.read_text())["crypto"]["kdf"] == "scrypt"
    before = target.read_bytes()
    again = pandacea(*command, said="the wallet's\n")
    assert again.returncode == 2
    assert "never overwritten" in again.stderr
    assert target.read_bytes() == before


def test_the_environment_is_no_place_for_the_key(tmp_path: Path, passphrase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable would be seen by every process of the same user, so none is read: without input there is no key."""
    monkeypatch.setenv("PANDACEA_PRIVATE_KEY", PRIVATE)
    assert pandacea("keys", "import", str(tmp_path / "k.json"), "--passphrase-file", passphrase, said="").returncode == 2
    assert not (tmp_path / "k.json").exists()
