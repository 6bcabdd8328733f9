"""`pandacea leases`: list the approved leases; acknowledge one whose approval the chain cannot prove; read leases again."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from pandacea.cli.command import Commands, add_command, load_config_quietly
from pandacea.cli.control import run_control_verb


def lease_commands(commands: Commands) -> None:
    """Add `leases`, which lists them, and its actions `acknowledge` and `reread`."""
    leases = add_command(commands, "leases", _leases, "show which leases the node believes, and why")
    leases.add_argument("--json", action="store_true", help="print JSON")
    actions = leases.add_subparsers(metavar="ACTION")
    acknowledge = add_command(
        actions,
        "acknowledge",
        _acknowledge,
        "say that you approved a lease whose approval the chain cannot prove; shows its terms and asks",
        config=False,
    )
    # Given before or after the action: what is absent here must not undo what came before.
    acknowledge.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="default: ./config.yaml")
    acknowledge.add_argument("id", metavar="LEASE_ID")
    acknowledge.add_argument("--yes", action="store_true", help="ask nothing")
    acknowledge.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON; the terms go to standard error"
    )
    reread = add_command(
        actions, "reread", run_control_verb, "have the running node read a lease, or all, again; prints what changed", config=False
    )
    reread.set_defaults(verb="leases reread")
    reread.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="default: ./config.yaml")
    reread.add_argument("id", metavar="LEASE_ID", nargs="?", help="default: every lease since the deployment")
    reread.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def _leases(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.leases import list_leases

    config = load_config_quietly(parsed)
    rows = asyncio.run(list_leases(config))
    if parsed.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        count = f"{row['used']}/{row['max_computations']} used"
        print(f"{row['lease_id']}  {row['status']:<10} approval {row['approval']:<13} {count:<12} {row['reason'] or 'may run'}")
        if row["uncommitted"]:
            until = row["refundable_from"]
            refundable = "" if until is None else f", refundable from {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC"
            why = row["uncommitted_reason"] or "on its way"
            print(f"  {row['uncommitted']} delivered, not committed{refundable}: {why}")
    if not rows:
        print("No approved lease of this Earner is known yet.")
    return 0


def _acknowledge(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.leases import acknowledge_lease
    from pandacea.app.render import render_answer

    def write(text: str) -> None:
        print(text, file=sys.stderr if parsed.json else sys.stdout)

    def prompt(question: str) -> str:
        print(question, end="", flush=True, file=sys.stderr)
        return sys.stdin.readline()

    config = load_config_quietly(parsed)
    answer = asyncio.run(acknowledge_lease(config, parsed.id, yes=parsed.yes, write=write, prompt=prompt))
    if answer is None:
        return 1
    print(json.dumps(answer, indent=2) if parsed.json else render_answer("leases acknowledge", answer))
    return 0
