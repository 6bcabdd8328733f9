"""The node's key: encrypted at rest (Web3 Secret Storage v3), opened once, never printed."""

from __future__ import annotations

import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any, Final

import rfc8785
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from eth_keyfile import create_keyfile_json, decode_keyfile_json

from pandacea.errors import BadConfig
from pandacea_sdk.protocol.hashing import KeySigner

KDF: Final = "scrypt"
SCRYPT_WORK: Final = 1 << 17
"""scrypt's N: about 0.4 s and 128 MB a try, for the owner once, for a thief each time."""


class KeystoreSigner(KeySigner):
    """An unlocked key: signs digests (`Signer`), and is an account for transactions."""

    __slots__ = ("account",)

    def __init__(self, private_key: bytes) -> None:
        """Hold the key in memory; its representation never shows it."""
        super().__init__(private_key)
        self.account: LocalAccount = Account.from_key(private_key)


def create(path: Path, passphrase: str) -> str:
    """Make a new key, write it encrypted to `path` (mode 600), and return its address (0x + 40 lower-case hex digits).

    Raises:
        BadConfig: the file exists already, or cannot be written.
    """
    return import_key(path, "0x" + secrets.token_bytes(32).hex(), passphrase)


def import_key(path: Path, private_key: str, passphrase: str) -> str:
    """Encrypt a private key (64 hex digits) to `path`, as `create`."""
    signer = KeySigner(private_key)
    if not passphrase:
        raise BadConfig("The passphrase is empty; a keystore without one protects nothing.")
    document = create_keyfile_json(
        bytes.fromhex(private_key.removeprefix("0x")), passphrase.encode(), version=3, kdf=KDF, iterations=SCRYPT_WORK
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise BadConfig(f"{path} exists already; a keystore is never overwritten. Choose another name.") from None
    except OSError as problem:
        raise BadConfig(f"{path} cannot be written: {problem.strerror}.") from problem
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
    return str(signer.address).lower()


def address(path: Path) -> str:
    """The address a keystore states (not proved until it is unlocked)."""
    return "0x" + str(_read(path).get("address", "")).lower().removeprefix("0x")


def unlock(path: Path, passphrase: str) -> KeystoreSigner:
    """Decrypt a keystore.

    Raises:
        BadConfig: it is missing, readable by others, no keystore, or the passphrase is wrong; never says the passphrase.
    """
    document = _read(path)
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadConfig(f"earner.keystore {path} can be read by others (mode {mode & 0o777:o}); run: chmod 600 {path}")
    try:
        raw = decode_keyfile_json(document, passphrase.encode())
    except (ValueError, KeyError, TypeError) as problem:
        raise BadConfig(f"earner.keystore {path} does not open with this passphrase.") from problem
    return KeystoreSigner(bytes(raw))


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfig(f"earner.keystore {path} does not exist; make one with: pandacea keys create {path}") from None
    except (OSError, ValueError) as problem:
        raise BadConfig(f"earner.keystore {path} cannot be read as a keystore: {problem}.") from problem
    if not isinstance(document, dict) or "crypto" not in {str(name).lower() for name in document}:
        raise BadConfig(f"earner.keystore {path} is no Web3 Secret Storage keystore (it has no `crypto`).")
    return document


def read_passphrase(path: Path) -> str:
    """The first line of a passphrase file that only its owner can read.

    Raises:
        BadConfig: it is missing, empty, or others can read it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadConfig(f"The passphrase file {path} cannot be read: {problem}.") from problem
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadConfig(f"The passphrase file {path} can be read by others (mode {mode & 0o777:o}); run: chmod 600 {path}")
    line = text.split("\n", 1)[0].rstrip("\r")
    if not line:
        raise BadConfig(f"The passphrase file {path} is empty.")
    return line


def sign_personal(signer: KeystoreSigner, message: bytes) -> bytes:
    """EIP-191 `personal_sign` of raw bytes: 65 bytes r || s || v."""
    return bytes(signer.account.sign_message(encode_defunct(primitive=message)).signature)


def signed_document(signer: KeystoreSigner, document: dict[str, Any]) -> dict[str, Any]:
    """A document with `signature`: EIP-191 over the RFC 8785 JSON of the rest."""
    return {**document, "signature": "0x" + sign_personal(signer, rfc8785.dumps(document)).hex()}
