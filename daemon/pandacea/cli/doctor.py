"""Render findings as the table that `pandacea doctor` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from pandacea.domain.finding import Finding, FindingState

WIDTH: Final = 100
_STATES: Final = {FindingState.OK: "ok", FindingState.WEAKER: "weaker", FindingState.FAIL: "FAIL"}
_INDENT: Final = 10
_CHECK: Final = 48


def render_findings(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield lines of at most WIDTH columns (a longer command is not folded): the findings by group, then a summary."""
    for group, rows in groupby(findings, key=lambda finding: finding.group):
        yield f"{group}:"
        yield from (line for finding in rows for line in _row(finding))
    yield ""
    yield from textwrap.wrap(summarize_findings(findings), WIDTH)


def summarize_findings(findings: Sequence[Finding]) -> str:
    """Count the findings of each state and name those that failed."""
    counted = [f"{sum(finding.state is state for finding in findings)} {word}" for state, word in _STATES.items()]
    failed = [finding.check for finding in findings if finding.state is FindingState.FAIL]
    if not failed:
        return f"{', '.join(counted)}: the node can start."
    return f"{', '.join(counted)}. Fix first: {', '.join(failed)}; then run `pandacea doctor` again."


def _row(finding: Finding) -> Iterator[str]:
    name = finding.check.removeprefix(f"{finding.group} ").removeprefix(f"{finding.group}, ")
    head = f"  {_STATES[finding.state]:<{_INDENT - 2}}{name}"
    beside = f"{head:<{_INDENT + _CHECK}}  {finding.detail}"
    if len(beside) <= WIDTH and "\n" not in finding.detail and len(head) <= _INDENT + _CHECK:
        yield beside.rstrip()
    else:
        yield head
        yield from _indented(finding.detail)
    if finding.remedy:
        yield from _indented("-> " + finding.remedy)


def _indented(text: str) -> Iterator[str]:
    """Fold sentences; a line that is indented already is a command to copy and is not folded."""
    margin = " " * (_INDENT + 2)
    for line in text.rstrip().splitlines():
        if line.startswith("    "):
            yield margin + line
        elif line:
            yield from textwrap.wrap(
                line, WIDTH, initial_indent=margin, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
            )
        else:
            yield ""
