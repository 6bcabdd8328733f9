"""Where the Spender's key comes from: a documented order, and no message that repeats a secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from eth_account import Account
from eth_keyfile.keyfile import create_keyfile_json

from pandacea_sdk.credentials import find_signer
from pandacea_sdk.errors import UsageError
from pandacea_sdk.protocol.hashing import KeySigner, eip191_digest, recover_address

ONE, TWO, THREE, FOUR = ("0x" + f"{n}{n}" * 32 for n in range(1, 5))


def address(key: str) -> str:
    return KeySigner(key).address


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "spender.json"
    file.write_text(json.dumps(create_keyfile_json(bytes.fromhex(TWO[2:]), b"open sesame", iterations=2)))
    return file


def test_the_first_source_given_wins(keystore: Path, tmp_path: Path) -> None:
    """Argument, keystore argument, PANDACEA_PRIVATE_KEY, PANDACEA_KEYSTORE: in this order; nothing gives None."""
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    by_key = {"PANDACEA_PRIVATE_KEY": THREE}
    by_store = {"PANDACEA_KEYSTORE": str(keystore), "PANDACEA_KEYSTORE_PASSPHRASE": "open sesame"}
    by_file = {"PANDACEA_KEYSTORE": str(keystore), "PANDACEA_KEYSTORE_PASSPHRASE_FILE": str(secret)}
    found = [
        find_signer(ONE, keystore, "open sesame", environment=by_key),
        find_signer(None, keystore, "open sesame", environment=by_key),
        find_signer(None, keystore, None, secret, environment=by_key),
        find_signer(environment=by_key | by_store),
        find_signer(environment=by_store),
        find_signer(environment=by_file),
    ]
    assert [signer and signer.address for signer in found] == [address(key) for key in (ONE, TWO, TWO, THREE, TWO, TWO)]
    assert find_signer(environment={}) is None


def test_every_common_form_of_a_key_is_taken() -> None:
    """Hex with and without 0x, bytes, an eth-account account, anything that signs digests."""
    account = Account.from_key(FOUR)
    for key in (FOUR, FOUR[2:], f" {FOUR}\n", bytes.fromhex(FOUR[2:]), account, KeySigner(FOUR)):
        signer = find_signer(key, environment={})
        assert signer is not None
        digest = eip191_digest(b"x")
        assert signer.address.lower() == address(FOUR) == recover_address(digest, signer.sign_digest(digest))


def test_what_cannot_be_used_is_said_without_repeating_it(keystore: Path, tmp_path: Path) -> None:
    """Bad keys, wrong passphrases, missing files: UsageError, and no secret in it."""
    bad = tmp_path / "bad.json"
    bad.write_text("[]")
    attempts: list[Callable[[], object]] = [
        lambda: find_signer("0xdeadbeefdead", environment={}),
        lambda: find_signer(12345, environment={}),
        lambda: find_signer(environment={"PANDACEA_PRIVATE_KEY": "deadbeefdead"}),
        lambda: find_signer(None, keystore, "deadbeefdead", environment={}),
        lambda: find_signer(None, keystore, environment={}),
        lambda: find_signer(None, bad, "deadbeefdead", environment={}),
        lambda: find_signer(None, tmp_path / "none.json", "deadbeefdead", environment={}),
    ]
    for attempt in attempts:
        with pytest.raises(UsageError) as caught:
            attempt()
        assert "deadbeef" not in str(caught.value)
        assert caught.value.code == "bad-usage"
