"""Attacks that once worked, each played as it was played; a table at the end lists finding, attack and outcome."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.chain.conftest import agreement, anvil
from tests.jobs.conftest import served

__all__ = ["agreement", "anvil", "served"]

_FILE: Final = re.compile(r"tests/attacks/(test_([a-z]\d+)_\w+)\.py")
_HERE: Final = Path(__file__).parent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List each finding of docs/security.md with its attack and `held`, or the tests that did not hold."""
    rows: dict[str, tuple[str, list[str]]] = {}
    for kind in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(kind, ()):
            found = _FILE.match(report.nodeid)
            if found is None:
                continue
            broken = rows.setdefault(found[2].upper(), (_attack(found[1]), []))[1]
            if kind != "passed":
                broken.append(f"{kind}: {report.nodeid.partition('::')[2]}")
    if not rows:
        return
    terminalreporter.section(f"{len(rows)} attacks")
    width = max(len(attack) for attack, _ in rows.values())
    for finding, (attack, broken) in sorted(rows.items(), key=lambda row: (row[0][0], int(row[0][1:]))):
        terminalreporter.write_line(
            f"{finding.ljust(4)} {attack.ljust(width)}  {'held' if not broken else 'NOT HELD: ' + ', '.join(broken)}"
        )


def _attack(module: str) -> str:
    """The first line of the test file's docstring: what the attacker does."""
    text = (_HERE / f"{module}.py").read_text(encoding="utf-8")
    found = re.match(r'"""(.+?)(?:"""|\n)', text)
    return module if found is None else found[1].rstrip(".")
