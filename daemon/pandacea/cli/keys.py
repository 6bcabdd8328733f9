"""`pandacea keys`: encrypted keystores. A private key comes from a hidden prompt, standard input or a file, never from an argument."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import Final

from pandacea.cli.command import Commands, add_command

PURPOSE: Final = """\
{file} holds the key of this address, encrypted. Keep a copy of it and of its passphrase.
As earner.keystore it is the node's operator key: it approves leases, commits results and signs receipts. It needs a little ether for that
on the lease's chain, and, unless it is the Earner's own key, to be named there by the Earner (LeaseChain.set_operator)."""
PASSPHRASE_HELP: Final = "a file (mode 600) whose first line is the passphrase"  # noqa: S105  # a help text, not a passphrase


def key_commands(commands: Commands) -> None:
    """Add `keys` and its actions: create, import, address."""
    keys = commands.add_parser("keys", help="encrypted keystores").add_subparsers(required=True, metavar="ACTION")
    create = add_command(keys, "create", _create, "make a new key and keep it encrypted; prints its address", config=False)
    create.add_argument("file", type=Path, help="the keystore to write")
    create.add_argument("--passphrase-file", type=Path, required=True, help=PASSPHRASE_HELP)
    imported = add_command(
        keys,
        "import",
        _import,
        "keep a key you have encrypted: 64 hex digits, asked for or from standard input, or another keystore",
        config=False,
    )
    imported.add_argument("file", type=Path, help="the keystore to write")
    imported.add_argument("--passphrase-file", type=Path, required=True, help=f"of the new keystore: {PASSPHRASE_HELP}")
    imported.add_argument(
        "--keystore", type=Path, help="take the key from this keystore (Web3 Secret Storage v3), as wallets export it"
    )
    imported.add_argument("--keystore-passphrase-file", type=Path, help="what opens --keystore; default: asked for")
    show = add_command(keys, "address", _address, "print the address of a keystore", config=False)
    show.add_argument("file", type=Path, help="the keystore")


def _create(parsed: argparse.Namespace) -> int:
    from pandacea import keys

    return _print_address(parsed.file, keys.create_keystore(parsed.file, keys.read_passphrase(parsed.passphrase_file)))


def _import(parsed: argparse.Namespace) -> int:
    from pandacea import keys

    passphrase = keys.read_passphrase(parsed.passphrase_file)
    private_key: str | bytes
    if parsed.keystore is not None:
        opened = keys.unlock_keystore(parsed.keystore, keys.read_passphrase(parsed.keystore_passphrase_file))
        private_key = bytes(opened.account().key)
    elif sys.stdin.isatty():
        private_key = getpass.getpass("Private key (64 hex digits, not shown): ")
    else:
        private_key = sys.stdin.readline()
    return _print_address(parsed.file, keys.import_key(parsed.file, private_key, passphrase))


def _address(parsed: argparse.Namespace) -> int:
    from pandacea import keys
    from pandacea_sdk.protocol.addresses import to_checksum_address

    print(to_checksum_address(keys.keystore_address(parsed.file)))
    return 0


def _print_address(file: Path, address: str) -> int:
    """Print the address alone on standard output, for scripts, and what the key is for on standard error."""
    from pandacea_sdk.protocol.addresses import to_checksum_address

    print(to_checksum_address(address))
    print(PURPOSE.format(file=file), file=sys.stderr)
    return 0
