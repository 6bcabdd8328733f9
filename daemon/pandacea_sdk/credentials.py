"""Find the Spender's key: the first that is given, in a documented order."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pandacea_sdk.errors import usage_error
from pandacea_sdk.protocol.hashing import KeySigner, Signer

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

KEY_VARIABLE: Final = "PANDACEA_PRIVATE_KEY"
KEYSTORE_VARIABLE: Final = "PANDACEA_KEYSTORE"
PASSPHRASE_VARIABLE: Final = "PANDACEA_KEYSTORE_PASSPHRASE"  # noqa: S105  # the name of a variable
PASSPHRASE_FILE_VARIABLE: Final = "PANDACEA_KEYSTORE_PASSPHRASE_FILE"  # noqa: S105  # the name of a variable


class AccountSigner:
    """Signs with an eth-account `LocalAccount`, or an object like it with `address` and `unsafe_sign_hash`."""

    def __init__(self, account: Any) -> None:
        """`account` signs what this signer is given."""
        self.account = account
        self.address = str(account.address)

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes, as `protocol.hashing.Signer` says."""
        return bytes(self.account.unsafe_sign_hash(digest).signature)


def find_signer(
    key: str | bytes | Signer | Any | None = None,
    keystore: str | os.PathLike[str] | None = None,
    passphrase: str | None = None,
    passphrase_file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Signer | None:
    """Make a signer from the first of these that is given; None when none is.

    1. `key`: 64 hex digits, 32 bytes, an eth-account account, or a `Signer`;
    2. `keystore` (Web3 Secret Storage v3) with `passphrase` or `passphrase_file`;
    3. the environment variable PANDACEA_PRIVATE_KEY;
    4. PANDACEA_KEYSTORE with PANDACEA_KEYSTORE_PASSPHRASE or PANDACEA_KEYSTORE_PASSPHRASE_FILE (default: `passphrase` as given).

    Raises:
        UsageError: what is given cannot be used. The message never repeats a key or passphrase.
    """
    variables = os.environ if environment is None else environment
    if key is not None:
        return _from_key(key)
    if keystore is not None:
        return _open(Path(keystore), passphrase, passphrase_file)
    if variables.get(KEY_VARIABLE):
        return _from_key(variables[KEY_VARIABLE], f"the environment variable {KEY_VARIABLE}")
    if variables.get(KEYSTORE_VARIABLE):
        return _open(
            Path(variables[KEYSTORE_VARIABLE]),
            passphrase or variables.get(PASSPHRASE_VARIABLE),
            passphrase_file or variables.get(PASSPHRASE_FILE_VARIABLE),
        )
    return None


def _from_key(key: Any, source: str = "key") -> Signer:
    if isinstance(key, str | bytes | bytearray):
        try:
            return KeySigner(key.strip() if isinstance(key, str) else bytes(key))
        except ValueError as error:
            raise usage_error(f"{source} is {error}.") from None
    if hasattr(key, "sign_digest"):
        own_signer: Signer = key
        return own_signer
    if hasattr(key, "unsafe_sign_hash"):
        return AccountSigner(key)
    raise usage_error(f"{source} is a {type(key).__name__}; give 64 hex digits, 32 bytes, or an eth-account account.")


def _open(keystore: Path, passphrase: str | None, passphrase_file: str | os.PathLike[str] | None) -> Signer:
    return KeySigner(_decrypted(keystore, passphrase, passphrase_file))


def _decrypted(keystore: Path, passphrase: str | None, passphrase_file: str | os.PathLike[str] | None) -> bytes:
    from eth_keyfile.keyfile import decode_keyfile_json

    if passphrase is None and passphrase_file is None:
        raise usage_error(
            f"The keystore {keystore} needs its passphrase: give passphrase, passphrase_file or {PASSPHRASE_VARIABLE}."
        )
    try:
        if passphrase is None and passphrase_file is not None:
            passphrase = Path(passphrase_file).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
        document = json.loads(keystore.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise usage_error(f"The keystore {keystore} or its passphrase file cannot be read: {_reason(error)}.") from None
    try:
        return bytes(decode_keyfile_json(document, (passphrase or "").encode()))
    except (ValueError, KeyError, TypeError, NotImplementedError, AttributeError):
        raise usage_error(
            f"The passphrase does not open {keystore}, or the file is not a Web3 Secret Storage v3 keystore."
        ) from None


def load_account(
    keystore: str | os.PathLike[str], passphrase: str | None = None, passphrase_file: str | os.PathLike[str] | None = None
) -> LocalAccount:
    """Open a keystore; returns its account as `LeaseChain(key=...)` takes it.

    Raises:
        UsageError: it cannot be read, or the passphrase does not open it.
    """
    return account_from_key(_decrypted(Path(keystore), passphrase, passphrase_file))


def account_from_key(key: str | bytes | LocalAccount) -> LocalAccount:
    """Make an account from a private key (64 hex digits, 32 bytes); an account is returned as it is.

    Raises:
        UsageError: it is not a private key. The message never repeats it.
    """
    from eth_account import Account

    if not isinstance(key, str | bytes):
        return key
    try:
        KeySigner(key.strip() if isinstance(key, str) else key)  # its error does not repeat the key
    except ValueError:
        raise usage_error(
            "key is not a private key (64 hex digits); a keystore is opened with "
            "pandacea_sdk.credentials.load_account(file, passphrase_file=...)."
        ) from None
    account: LocalAccount = Account.from_key(key.strip() if isinstance(key, str) else key)
    return account


def account_of(signer: Signer) -> LocalAccount:
    """Return the account of a signer, with which transactions are signed.

    Raises:
        UsageError: the signer is an object of the caller's own (a contract wallet's), which signs requests alone.
    """
    if isinstance(signer, KeySigner):
        return account_from_key(signer.private_key)
    if isinstance(signer, AccountSigner) and hasattr(signer.account, "sign_transaction"):
        account: LocalAccount = signer.account
        return account
    raise usage_error(
        f"key is a {type(signer).__name__}, which signs requests and no transactions: make the lease with your wallet (createLease)."
    )


def _reason(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8 JSON"
