"""Reports of progress that say they are the last pass the supervisor's brake, and the flood keeps the node's event loop busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pandacea.flows.ports import ProgressReported
from tests.prerequisites import find_program
from tests.sandbox.conftest import environment
from tests.sandbox.harness import Laboratory, close_laboratory, open_laboratory

__all__ = ["environment"]

FLOOD = """
import struct, time
status = next(c.cell_contents for c in pandacea_progress.__closure__ if hasattr(c.cell_contents, "send"))
until = time.monotonic() + 1.0
sent = 0
while time.monotonic() < until:
    status.send(b"P" + struct.pack(">dd", sent, 0))
    sent += 1
print(sent)
"""
AN_HONEST_END = """
for number in range(1, 11):
    pandacea_progress(number, 10)
"""


@pytest.fixture
async def sandbox(environment: Path) -> AsyncIterator[Laboratory]:
    find_program("bwrap", "bubblewrap")
    made = await open_laboratory("bubblewrap-cold", environment, name="l3")
    yield made
    await close_laboratory(made)


async def test_twenty_reports_a_second_whatever_they_say(sandbox: Laboratory) -> None:
    """A second of thousands of reports that all are `done`: some twenty arrive, and other work of the loop has its turns."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    other = asyncio.create_task(others())
    outcome = await sandbox.run(FLOOD)
    other.cancel()
    reports = [event for event in sandbox.events if isinstance(event, ProgressReported)]
    sent = int(outcome.output)
    assert sent > 500, "it was a flood"
    assert 2 <= len(reports) <= 2 + outcome.seconds / 0.05, f"{len(reports)} of {sent}"
    assert reports[-1].done == sent - 1, "the newest always arrives"
    assert turns > 10


async def test_the_last_report_of_an_honest_script_arrives(sandbox: Laboratory) -> None:
    """Ten reports at once: the brake drops some in between, never the last."""
    await sandbox.run(AN_HONEST_END)
    reports = [event for event in sandbox.events if isinstance(event, ProgressReported)]
    assert reports[-1] == ProgressReported(10, 10)
