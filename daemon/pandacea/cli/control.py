"""`pandacea results` and `pandacea code`: what waits for the Earner's word."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any, Final

from pandacea.cli.command import add_command, load_config_quietly
from pandacea.config import Config

IRREVERSIBLE: Final = {
    "results release": "Once it is released the Spender has the result, and it cannot be recalled.",
    "results refuse": "Output, artifacts, manifest and receipt are thrown away for good, and the Spender learns your reason only.",
}
"""What cannot be taken back, and what to know first."""


def control_commands(commands: Any) -> None:
    """What the Earner decides: the running node is asked to act; when none runs, the command does it."""
    results = commands.add_parser("results", help="held results").add_subparsers(required=True, metavar="ACTION")
    code = commands.add_parser("code", help="scripts handed in for approval").add_subparsers(required=True, metavar="ACTION")
    for actions, verb, summary in (
        (results, "results list", "results that wait for your word"),
        (results, "results show", "one result: its output and where its files lie"),
        (results, "results release", "let a held result out to its Spender"),
        (results, "results refuse", "keep a held result back for good"),
        (code, "code list", "scripts that wait for your word"),
        (code, "code show", "one script, what an approval covers, and lines to look at"),
        (code, "code approve", "let a script run with its inputs, uploads and params"),
        (code, "code reject", "refuse a script; takes an approval back, too"),
    ):
        made = add_command(actions, verb.split()[1], run_control_verb, summary)
        made.set_defaults(verb=verb)
        made.add_argument("--json", action="store_true", help="print JSON")
        if verb == "code list":
            made.add_argument("--all", action="store_true", help="those already decided, too")
        if not verb.endswith("list"):
            made.add_argument("id", help="as listed; its beginning is enough while only one begins so")
        if verb == "results release":
            made.add_argument(
                "--seen", metavar="DIGEST", help="what `results show` printed: only that is released, and nothing is asked"
            )
        if verb in {"results refuse", "code reject"}:
            made.add_argument("--reason", help="one sentence for the Spender")
        if verb == "results refuse":
            made.add_argument("--yes", action="store_true", help="ask nothing")


def run_control_verb(parsed: argparse.Namespace) -> int:
    """Have the running node act, or act in its place; print its answer."""
    from pandacea import app

    config = load_config_quietly(parsed)
    if not _meant(parsed, config):
        print("Nothing was done.")
        return 1
    asked = {name: value for name in ("id", "reason", "all", "seen") if (value := getattr(parsed, name, None)) is not None}
    answer = asyncio.run(app.call_node(config, parsed.verb, asked))
    print(json.dumps(answer, indent=2) if parsed.json else app.render_answer(parsed.verb, answer))
    return 0


def _meant(parsed: argparse.Namespace, config: Config) -> bool:
    """Ask before what cannot be taken back; a refusal without a reason is asked for one.

    A release names what was seen. At a terminal the result is shown first where the command does not; elsewhere the node refuses it.
    """
    what = IRREVERSIBLE.get(parsed.verb)
    if what is None:
        return True
    from pandacea import app
    from pandacea.app.commands.prompts import confirm, prompt_terminal

    if parsed.verb == "results release":
        if parsed.seen is not None or not sys.stdin.isatty():
            return True
        answer = asyncio.run(app.call_node(config, "results show", {"id": parsed.id}))
        print(app.render_answer("results show", answer))
        parsed.seen = answer["seen"]
        return confirm(what, yes=False)
    if not confirm(what, yes=parsed.yes):
        return False
    if parsed.verb == "results refuse" and parsed.reason is None and not parsed.yes:
        parsed.reason = prompt_terminal("One sentence for the Spender, or Enter for none: ")
    return True
