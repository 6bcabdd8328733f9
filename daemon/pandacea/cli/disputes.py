"""`pandacea disputes`: which leases a Spender disputed, why, and until when the arbiter decides."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from pandacea.cli.command import Commands, add_command, load_config_quietly
from pandacea.cli.leases import format_ether, format_time

if TYPE_CHECKING:
    from pandacea.app.commands.disputes import DisputedLease


def disputes_command(commands: Commands) -> None:
    """Add `disputes`, which lists the disputed leases."""
    disputes = add_command(commands, "disputes", _disputes, "show the leases that a Spender disputed, why, and what comes next")
    disputes.add_argument("--json", action="store_true", help="print JSON")


def _disputes(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.disputes import list_disputes

    rows = asyncio.run(list_disputes(load_config_quietly(parsed)))
    if parsed.json:
        print(json.dumps([{**asdict(row), "price_wei": str(row.price_wei)} for row in rows], indent=2))
    else:
        print("\n".join(line for row in rows for line in render_dispute(row)) if rows else "No lease of this Earner was disputed.")
    return 0


def render_dispute(row: DisputedLease) -> list[str]:
    """Return the lines that a person reads."""
    from pandacea.app.commands.disputes import ARBITRATION_SECONDS

    raised = f"block {row.disputed_block}" if row.raised_at is None else format_time(row.raised_at)
    until = "30 days later" if row.raised_at is None else format_time(row.raised_at + ARBITRATION_SECONDS)
    if row.is_open:
        state = f"open: the lease's arbiter decides until {until}; show it manifest and receipt of what you delivered"
    elif row.won_by_spender is None:
        state = f"ended: the lease is {row.status}"
    else:
        state = (
            "decided for the Spender: the price went back" if row.won_by_spender else "not upheld, or split for want of a verdict"
        )
    product = row.product or "a product that is not offered here"
    reason = "cannot be read now: no endpoint shows it" if row.reason is None else repr(row.reason)
    return [
        f"{row.lease_id}  {state}",
        f"  {row.spender} on {raised}, about {product}, price {format_ether(row.price_wei)}, "
        f"{row.committed} of {row.max_computations} computations committed",
        f"  reason: {reason}",
    ]
