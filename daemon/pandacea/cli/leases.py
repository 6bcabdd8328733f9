"""`pandacea leases`: list the approved leases; acknowledge one whose approval the chain cannot prove; read leases again."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from pandacea.cli.command import Commands, add_command, load_config_quietly
from pandacea.cli.control import run_control_verb

_LAST_TIME: Final = 253_402_300_799
"""The last second that a date can name."""
_SENT: Final = {
    "approve": "approve a lease that waits",
    "refuse": "refuse a lease that waits: its Spender has the price back (only with the Earner's own key)",
    "cancel": "cancel an approved lease: its Spender has the whole price back (only with the Earner's own key)",
}
"""What a running node sends to the contract."""


def lease_commands(commands: Commands) -> None:
    """Add `leases`, which lists them, and its actions."""
    leases = add_command(commands, "leases", _leases, "show which leases the node believes, and why")
    leases.add_argument("--json", action="store_true", help="print JSON")
    actions = leases.add_subparsers(metavar="ACTION")
    for verb, summary in _SENT.items():
        action = add_command(actions, verb, _send, summary, config=False)
        action.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="default: ./config.yaml")
        action.add_argument("id", metavar="LEASE_ID", help="or the beginning of it")
        action.set_defaults(verb=verb)
        if verb != "approve":
            action.add_argument("--keystore", type=Path, help="the Earner's own key, where the node works with its operator's")
            action.add_argument("--passphrase-file", type=Path, help="of --keystore; default: ask at the terminal")
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
    from pandacea.app.commands.leases import list_leases, list_requested_leases

    config = load_config_quietly(parsed)
    waiting, rows = asyncio.run(list_requested_leases(config)), asyncio.run(list_leases(config))
    if parsed.json:
        print(json.dumps([{**row, "status": "created"} for row in waiting] + rows, indent=2))
        return 0
    for row in waiting:
        product = row["product_id"] or "a product that is not offered here"
        asked = "" if row["asking_wei"] is None else f" (you ask {format_ether(int(row['asking_wei']))})"
        print(
            f"{row['lease_id']}  waits for you until {format_time(row['decide_until'])}: pandacea leases approve {row['lease_id'][:10]}"
        )
        computations = f"{row['max_computations']} computations of {product}"
        price = f"{format_ether(int(row['price_wei']))}{asked}"
        print(f"  {row['spender']} pays {price} for {computations}, until {format_time(row['expires_at'])}")
    for row in rows:
        count = f"{row['used']}/{row['max_computations']} used"
        print(f"{row['lease_id']}  {row['status']:<10} approval {row['approval']:<13} {count:<12} {row['reason'] or 'may run'}")
        if row["approved_by_rule"]:
            print(f"  approved without anybody looking, by the rule {row['approved_by_rule']}")
        if row["uncommitted"]:
            until = row["refundable_from"]
            refundable = "" if until is None else f", refundable from {format_time(until)}"
            why = row["uncommitted_reason"] or "on its way"
            print(f"  {row['uncommitted']} delivered, not committed{refundable}: {why}")
    if not rows:
        print("No approved lease of this Earner is known yet.")
    return 0


def _send(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.leases import send_for_lease

    if getattr(parsed, "keystore", None) is not None:
        return _cancel_with_key(parsed)
    answer = asyncio.run(send_for_lease(load_config_quietly(parsed), parsed.verb, parsed.id))
    print(f"{answer['sent']} of {answer['lease_id']} is on its way; `pandacea leases` shows when the chain has it.")
    return 0


def _cancel_with_key(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.earner_key import cancel_with_key, unlock_earner_key

    config = load_config_quietly(parsed)
    account = unlock_earner_key(config, parsed.keystore, parsed.passphrase_file)
    print(f"{asyncio.run(cancel_with_key(config, account, parsed.id))} is cancelled: its Spender has the price back.")
    return 0


def format_ether(wei: int) -> str:
    """Write an amount in ether, exactly."""
    return f"{Decimal(wei) / 10**18:f} ether"


def format_time(seconds: int | None) -> str:
    """Write a time in Unix seconds as people read it; None: for ever."""
    return "for ever" if seconds is None else f"{datetime.fromtimestamp(min(seconds, _LAST_TIME), UTC):%Y-%m-%d %H:%M} UTC"


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
