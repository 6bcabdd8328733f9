"""`pandacea income`: what the leases brought and cost, by product and month."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pandacea.cli.command import Commands, add_command, load_config_quietly
from pandacea.cli.leases import format_ether

if TYPE_CHECKING:
    from pandacea.flows.settlement.income import IncomeRow

_AMOUNTS: Final = ("leased", "earned", "pending", "gas")


def income_command(commands: Commands) -> None:
    """Add `income`, which prints the books of the leases."""
    income = add_command(commands, "income", _income, "show what the leases brought and cost, by product and month")
    form = income.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print JSON")


def _income(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.income import load_income

    rows = asyncio.run(load_income(load_config_quietly(parsed)))
    members = [income_members(row) for row in rows]
    if parsed.json:
        print(json.dumps(members, indent=2))
    elif parsed.csv:
        writer = csv.DictWriter(sys.stdout, list(members[0]) if members else ["month", "product"])
        writer.writeheader()
        writer.writerows(members)
    else:
        print("\n".join(render_income(rows)))
    return 0


def income_members(row: IncomeRow) -> Mapping[str, str | int | bool]:
    """Return a row as it is exported: each amount in wei and in ether."""
    amounts: dict[str, str] = {}
    for name in _AMOUNTS:
        wei = int(getattr(row, f"{name}_wei"))
        amounts |= {f"{name}_wei": str(wei), f"{name}_ether": format_ether(wei).removesuffix(" ether")}
    return {"month": row.month, "product": row.product, "leases": row.leases, **amounts, "gas_is_bound": row.gas_is_bound}


def render_income(rows: Sequence[IncomeRow]) -> list[str]:
    """Return the lines that a person reads."""
    if not rows:
        return ["No lease of this Earner was approved yet."]
    lines = []
    for row in rows:
        leases = "1 lease" if row.leases == 1 else f"{row.leases} leases"
        amounts = [f"{name} {_both(int(getattr(row, f'{name}_wei')))}" for name in _AMOUNTS]
        if row.gas_is_bound:
            amounts[-1] += " at most"
        lines.append(f"{row.month}  {row.product}  {leases}: {', '.join(amounts)}")
    return lines


def _both(wei: int) -> str:
    return f"{format_ether(wei)} ({wei} wei)"
