"""The same open sandboxes as in tests/sandbox, and a table at the end: each script, and how it ended in each kind of sandbox."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.sandbox.conftest import environment, image, laboratory, people
from tests.sandbox.harness import MODES, USER_MODES

__all__ = ["environment", "image", "laboratory", "people"]

_COLUMNS: Final = (*MODES, *USER_MODES)
_ITEM: Final = re.compile(rf"tests/hostile/\w+\.py::test_(\w+)\[({'|'.join(_COLUMNS)})(?:-(.+))?\]")
_SHOWN: Final = {"failed": "FAILED", "error": "ERROR", "skipped": "skipped"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print script x kind of sandbox: how it ended, as expected, or FAILED."""
    table: dict[str, dict[str, str]] = {}
    for kind in ("passed", *_SHOWN):
        for report in terminalreporter.stats.get(kind, ()):
            item = _ITEM.fullmatch(report.nodeid)
            if item is not None:
                ended = dict(report.user_properties).get("ended", "as expected")
                name = item[3] if item[1] == "attack" else " ".join(filter(None, (item[1], item[3])))
                table.setdefault(name, {})[item[2]] = _SHOWN.get(kind, str(ended))
    if not table:
        return
    terminalreporter.section(f"{len(table)} scripts, how each ended in each kind of sandbox")
    width = max(map(len, table))
    columns = [column for column in _COLUMNS if any(column in row for row in table.values())]
    terminalreporter.write_line("  ".join(["".ljust(width), *(column.ljust(20) for column in columns)]).rstrip())
    for name, row in table.items():
        cells = (row.get(column, "").ljust(20) for column in columns)
        terminalreporter.write_line("  ".join([name.ljust(width), *cells]).rstrip())
