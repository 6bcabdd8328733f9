"""`pandacea audit` and `pandacea replay`: list and check the audit log; run a computation again and compare."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Final

from pandacea.cli.command import Commands, add_command, load_config_quietly

BROKEN_STATUS: Final = 3
"""Exit status of `audit verify` for a log that is not what was written, and of `replay` for a result that did not repeat; 1: nobody
could look."""


def audit_commands(commands: Commands) -> None:
    """Add `audit`, which reads the database beside a running node or without one, and `replay`, which the running node carries out."""
    audit = add_command(commands, "audit", _list_rows, "who ran what on which data, who released it, and what left")
    audit.add_argument("--json", action="store_true", help="print JSON, one row a line")
    actions = audit.add_subparsers(metavar="ACTION")
    verify = add_command(actions, "verify", _verify, "name the first row that was changed, cut out, reordered or put back")
    verify.add_argument(
        "--receipts",
        type=Path,
        metavar="PATH",
        help="a JSON file, or a folder of them: receipts, or answers that hold receipt and manifest, held against the log, too",
    )

    replay = add_command(
        commands, "replay", _replay, "run a kept computation again and compare it, byte for byte, with what was signed"
    )
    replay.add_argument("id", help="of the computation; its beginning is enough while only one begins so")
    replay.add_argument("--json", action="store_true", help="print JSON")


def _list_rows(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.audit import print_rows
    from pandacea.app.render import render_audit_row

    config = load_config_quietly(parsed)
    return asyncio.run(print_rows(config, lambda row: print(json.dumps(row) if parsed.json else render_audit_row(row))))


def _replay(parsed: argparse.Namespace) -> int:
    from pandacea.app.control.client import call_node
    from pandacea.app.render import render_answer

    answer = asyncio.run(call_node(load_config_quietly(parsed), "replay", {"id": parsed.id}))
    print(json.dumps(answer, indent=2) if parsed.json else render_answer("replay", answer))
    return 0 if answer["equal"] else BROKEN_STATUS


def _verify(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.audit import verify_log

    report = asyncio.run(verify_log(load_config_quietly(parsed), parsed.receipts))
    if report.fault is not None:
        sys.stderr.write(f"pandacea: the audit log is broken at row {report.fault.seq}: {report.fault.reason}.\n")
        return BROKEN_STATUS
    print(f"The audit log holds: {report.rows} rows, {report.signed} signed results. Head: {report.head}")
    return 0
