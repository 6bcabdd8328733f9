"""Keep the node's key in an encrypted keystore (Web3 Secret Storage v3); it is never written or logged unencrypted.

Passphrases come in as arguments; the configuration decides where they are read from (credential, environment, file).
"""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rfc8785
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

from pandacea.config.secret_file import read_secret
from pandacea.domain.ids import Address
from pandacea.errors import BadConfig
from pandacea_sdk.protocol.hashing import KeySigner, eip191_digest
from pandacea_sdk.protocol.json_types import JsonObject

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

MIN_PASSPHRASE_CHARACTERS: Final = 8
_MAX_FILE_BYTES: Final = 16 * 1024
_ADDRESS: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{40})")


class KeystoreSigner(KeySigner):
    """The decrypted key: signs receipts (`protocol.hashing.Signer`) and, through `account`, transactions."""

    __slots__ = ("_private_key",)

    def __init__(self, private_key: bytes) -> None:
        """`private_key`: 32 bytes; kept in memory for as long as the node runs."""
        super().__init__(private_key)
        self._private_key = private_key

    def account(self) -> LocalAccount:
        """Return the same key as an eth-account object, for signing transactions."""
        from eth_account import Account

        account: LocalAccount = Account.from_key(self._private_key)
        return account


def create_keystore(file: Path, passphrase: str) -> Address:
    """Make a new key, write it encrypted to the new file `file` (mode 0600), and return its address.

    Raises:
        BadConfig: the file exists, cannot be written, or the passphrase is too short.
    """
    return import_key(file, secrets.token_bytes(32), passphrase)


def import_key(file: Path, private_key: bytes | str, passphrase: str) -> Address:
    """Write an existing private key (32 bytes, or 64 hex digits) encrypted to the new file `file`, and return its address.

    Raises:
        BadConfig: it is not a private key, or as `create_keystore`.
    """
    if len(passphrase) < MIN_PASSPHRASE_CHARACTERS:
        raise BadConfig(f"The passphrase has {len(passphrase)} characters; use at least {MIN_PASSPHRASE_CHARACTERS}.")
    try:
        raw = bytes.fromhex(private_key.strip().removeprefix("0x")) if isinstance(private_key, str) else private_key
        address = Address(KeySigner(raw).address)
    except ValueError:
        raise BadConfig("This is not a private key: 64 hex digits are needed.") from None
    document = create_keyfile_json(raw, passphrase.encode(), kdf="scrypt")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise BadConfig(f"{file} exists; a keystore is never overwritten. Name another file.") from None
    except OSError as error:
        raise BadConfig(f"{file} cannot be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump(document, out)
        out.flush()
        os.fsync(out.fileno())
    return address


def keystore_address(file: Path) -> Address:
    """Return the address that a keystore names, without decrypting it.

    Raises:
        BadConfig: the file is missing or is not a keystore.
    """
    match = _ADDRESS.fullmatch(str(_read_keystore(file).get("address", "")))
    if match is None:
        raise BadConfig(f"{file} names no address; it is not a Web3 Secret Storage file of a known kind.")
    return Address("0x" + match[1].lower())


def unlock_keystore(file: Path, passphrase: str) -> KeystoreSigner:
    """Decrypt a keystore. Takes about a second, which makes guessing passphrases expensive.

    Raises:
        BadConfig: the file is missing or is not a keystore, or the passphrase does not open it; the passphrase is never in the text.
    """
    document = _read_keystore(file)
    try:
        signer = KeystoreSigner(bytes(decode_keyfile_json(document, passphrase.encode())))
    except (ValueError, KeyError, TypeError, NotImplementedError):
        # Not chained: the frames of eth-keyfile's error would carry the passphrase into a traceback.
        raise BadConfig(f"The passphrase does not open {file}, or the file is damaged.") from None
    named = _ADDRESS.fullmatch(str(document.get("address", "")))
    if named is not None and "0x" + named[1].lower() != signer.address:
        raise BadConfig(f"{file} names the address 0x{named[1].lower()}, but holds the key of {signer.address}.")
    return signer


def require_private(file: Path) -> None:
    """Refuse a keystore that others can read: its encryption is only as strong as the passphrase.

    Raises:
        BadConfig: they can. A missing keystore passes: `unlock_keystore` names it.
    """
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return
    if mode & 0o077:
        raise BadConfig(f"The keystore {file} can be read by others (mode {mode:o}): run chmod 600 {file}.")


def read_passphrase(file: Path | None) -> str:
    """Read a passphrase: the first line of a private file, or the answer at the terminal, or one line of standard input.

    Raises:
        BadConfig: the file is missing, is readable by others, or is empty.
    """
    if file is None:
        line = getpass.getpass("Passphrase: ") if sys.stdin.isatty() else sys.stdin.readline()
        passphrase = line.rstrip("\r\n")
    else:
        passphrase = read_secret(file, "The passphrase file")
    if not passphrase:
        raise BadConfig(f"No passphrase in {file or 'standard input'}.")
    return passphrase


def _read_keystore(file: Path) -> JsonObject:
    try:
        with file.open("rb") as source:
            found = json.loads(source.read(_MAX_FILE_BYTES))
    except FileNotFoundError:
        raise BadConfig(f"The keystore {file} does not exist. Make one with `pandacea keys create {file}`.") from None
    except OSError as error:
        raise BadConfig(f"The keystore {file} cannot be read: {error.strerror}.") from error
    except ValueError:
        raise BadConfig(f"{file} is not a keystore: it is not JSON.") from None
    if not isinstance(found, dict):
        raise BadConfig(f"{file} is not a keystore: it is not a JSON object.")
    return found


def sign_personal(signer: KeystoreSigner, message: bytes) -> str:
    """Return the EIP-191 `personal_sign` signature of raw bytes: `0x` and 130 hex digits (r || s || v)."""
    return "0x" + signer.sign_digest(eip191_digest(message)).hex()


def sign_document(signer: KeystoreSigner, document: JsonObject) -> JsonObject:
    """Return the document with its `signature`: EIP-191 over the RFC 8785 JSON of the rest."""
    return {**document, "signature": sign_personal(signer, rfc8785.dumps(document))}
