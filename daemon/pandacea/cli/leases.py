"""`pandacea leases`: what the node believes of each lease, and the operator's word for one that the chain cannot prove."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from pandacea.cli.command import add_command, load_config_quietly


def lease_commands(commands: Any) -> None:
    """`leases` alone shows them."""
    leases = add_command(commands, "leases", _leases, "show which leases the node believes, and why")
    leases.add_argument("--json", action="store_true", help="print JSON")
    vouch = add_command(
        leases.add_subparsers(metavar="ACTION"),
        "acknowledge",
        _acknowledge,
        "say that you approved a lease whose approval the chain cannot prove; shows its terms and asks",
        config=False,
    )
    # Given before or after the action: what is absent here must not undo what came before.
    vouch.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="default: ./config.yaml")
    vouch.add_argument("id", metavar="LEASE_ID")
    vouch.add_argument("--yes", action="store_true", help="ask nothing")
    vouch.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON; the terms go to standard error")


def _leases(parsed: argparse.Namespace) -> int:
    from pandacea import app

    config = load_config_quietly(parsed)
    rows = asyncio.run(app.list_leases(config))
    if parsed.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        count = f"{row['used']}/{row['max_computations']} used"
        print(f"{row['lease_id']}  {row['status']:<10} approval {row['approval']:<13} {count:<12} {row['reason'] or 'may run'}")
    if not rows:
        print("No approved lease of this Earner is known yet.")
    return 0


def _acknowledge(parsed: argparse.Namespace) -> int:
    from pandacea import app

    def say(text: str) -> None:
        print(text, file=sys.stderr if parsed.json else sys.stdout)

    def ask(question: str) -> str:
        print(question, end="", flush=True, file=sys.stderr)
        return sys.stdin.readline()

    config = load_config_quietly(parsed)
    answer = asyncio.run(app.acknowledge_lease(config, parsed.id, yes=parsed.yes, say=say, ask=ask))
    if answer is None:
        return 1
    print(json.dumps(answer, indent=2) if parsed.json else app.render_answer("leases acknowledge", answer))
    return 0
