"""`pandacea devchain`: a development chain on this machine."""

from __future__ import annotations

import argparse

from pandacea.cli.command import Commands, add_command
from pandacea.errors import BadConfig


def devchain_command(commands: Commands) -> None:
    """Add `devchain`: the embedded chain, in the foreground."""
    added = add_command(
        commands,
        "devchain",
        _devchain,
        "run a development chain on this machine until Ctrl-C; nothing on it is worth anything, nothing of it is kept",
        config=False,
    )
    added.add_argument("--port", type=int, default=8545, help="on 127.0.0.1; 0 takes a free one; default: 8545")
    added.add_argument(
        "--fund", nargs="+", action="extend", default=[], metavar="ADDRESS", help="send each of these 100 ether to begin with"
    )
    added.add_argument("--json", action="store_true", help="print one line of JSON when it answers: url, chain_id, accounts")


def _devchain(parsed: argparse.Namespace) -> int:
    try:
        from pandacea.devchain.__main__ import run
    except ModuleNotFoundError as absent:
        if (absent.name or "").startswith("pandacea"):
            raise
        raise BadConfig(
            f"The development chain needs packages that are not installed ({absent.name} is missing). In a clone of the repository "
            "run: pip install '.[daemon,devchain]'; where pandacea came from a package index: pip install \"pandacea[daemon,devchain]\""
        ) from absent
    return run(parsed.port, parsed.fund, as_json=parsed.json)
