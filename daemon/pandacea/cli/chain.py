"""`pandacea chain`: what the node has read of the chain."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from pandacea.cli.command import Commands, add_command, load_config_quietly


def chain_commands(commands: Commands) -> None:
    """Add `chain` and its action `rebuild`."""
    chain = commands.add_parser("chain", help="what the node has read of the chain").add_subparsers(required=True, metavar="ACTION")
    rebuild = add_command(
        chain,
        "rebuild",
        _rebuild,
        "forget what was read of the chain, while no node runs; the next start reads it again from the deployment",
    )
    rebuild.add_argument("--yes", action="store_true", help="ask nothing")
    rebuild.add_argument("--json", action="store_true", help="print JSON; what is forgotten goes to standard error")


def _rebuild(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.chain import rebuild_chain

    def write(text: str) -> None:
        print(text, file=sys.stderr if parsed.json else sys.stdout)

    def prompt(question: str) -> str:
        print(question, end="", flush=True, file=sys.stderr)
        return sys.stdin.readline()

    counts = asyncio.run(rebuild_chain(load_config_quietly(parsed), yes=parsed.yes, write=write, prompt=prompt))
    if counts is None:
        return 1
    if parsed.json:
        print(json.dumps(counts, indent=2))
    return 0
