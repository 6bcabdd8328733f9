"""`pandacea results` and `pandacea code`: decide on held results and submitted scripts, over the node's control socket."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Final

from pandacea.cli.command import Commands, add_command, load_config_quietly
from pandacea.config import Config

IRREVERSIBLE: Final = {
    "results release": "Once it is released the Spender has the result, and it cannot be recalled.",
    "results refuse": "Output, artifacts, manifest and receipt are thrown away for good, and the Spender learns your reason only.",
}
"""Verb -> what to say before a decision that cannot be undone."""


def control_commands(commands: Commands) -> None:
    """Add `results` and `code` and their actions. A running node carries them out; when none runs, the command does."""
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
        added = add_control_command(actions, verb, summary)
        if verb == "code list":
            added.add_argument("--all", action="store_true", help="those already decided, too")
        if not verb.endswith("list"):
            added.add_argument("id", help="as listed; its beginning is enough while only one begins so")
        if verb == "results release":
            added.add_argument(
                "--seen", metavar="DIGEST", help="what `results show` printed: only that is released, and nothing is asked"
            )
        if verb in {"results refuse", "code reject"}:
            added.add_argument("--reason", help="one sentence for the Spender")
        if verb == "results refuse":
            added.add_argument("--yes", action="store_true", help="ask nothing")


def add_control_command(actions: Commands, verb: str, summary: str) -> argparse.ArgumentParser:
    """Add the action of one control verb, such as `results list`, below `actions`."""
    added = add_command(actions, verb.split()[1], run_control_verb, summary)
    added.set_defaults(verb=verb)
    added.add_argument("--json", action="store_true", help="print JSON")
    return added


def run_control_verb(parsed: argparse.Namespace) -> int:
    """Send a verb to the running node, or carry it out when none runs; print the answer."""
    from pandacea.app.control.client import call_node
    from pandacea.app.render import render_answer

    config = load_config_quietly(parsed)
    if not _confirm_verb(parsed, config):
        print("Nothing was done.")
        return 1
    arguments = {name: value for name in ("id", "reason", "all", "seen") if (value := getattr(parsed, name, None)) is not None}
    answer = asyncio.run(call_node(config, parsed.verb, arguments))
    print(json.dumps(answer, indent=2) if parsed.json else render_answer(parsed.verb, answer))
    return 0


def _confirm_verb(parsed: argparse.Namespace, config: Config) -> bool:
    """Ask before a decision that cannot be undone; ask for the reason of a refusal that gives none. True: go on.

    A release needs the digest of what was shown (`--seen`). Without it the result is shown first at a terminal; elsewhere the node
    refuses the release.
    """
    warning = IRREVERSIBLE.get(parsed.verb)
    if warning is None:
        return True
    from pandacea.app.commands.prompts import confirm, prompt_terminal
    from pandacea.app.control.client import call_node
    from pandacea.app.render import render_answer

    if parsed.verb == "results release":
        if parsed.seen is not None or not sys.stdin.isatty():
            return True
        answer = asyncio.run(call_node(config, "results show", {"id": parsed.id}))
        print(render_answer("results show", answer))
        parsed.seen = answer["seen"]
        return confirm(warning, yes=False)
    if not confirm(warning, yes=parsed.yes):
        return False
    if parsed.verb == "results refuse" and parsed.reason is None and not parsed.yes:
        parsed.reason = prompt_terminal("One sentence for the Spender, or Enter for none: ")
    return True
