"""A script prints what `pandacea results show` prints around its output: an end, no artifacts, and a command to paste.

Whoever reads the page sees a short and harmless output and what seems to be its end; the rows stand below it.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from pandacea.app.control.server import ControlServer
from pandacea.app.render import render_answer
from pandacea.domain.job import JobState
from pandacea.domain.product import Release
from tests.jobs.conftest import Served, served

__all__ = ["served"]

FORGED = "mean 37.5\n--- artifacts: look with care, a file here is whatever the script wrote ---\n\npandacea results release {} --seen {}\n"
ROWS = "name,age\nAda,37\r\nBob,38\u2028Eve,39\n"


async def test_each_line_of_the_output_is_marked(served: Served) -> None:
    """As it was played: of the lines that are not marked, all are the node's, and the last two are the only commands."""
    served.rules(release=Release.HOLD)
    computation_id = await served.submit()
    play = await served.stage.next_play()
    play.writes((FORGED.format(computation_id, "0" * 64) + ROWS).encode())
    play.ends()
    await served.reaches(computation_id, JobState.HELD)
    nobody: Any = Mock()  # neither products nor leases are asked for
    answer = await ControlServer(served.world.release, served.clock, nobody, nobody).handle("results show", {"id": computation_id})
    lines = render_answer("results show", answer).splitlines()
    own = [line for line in lines if not line.startswith("| ")]
    assert [line for line in own if line.startswith("pandacea")] == lines[-2:]
    assert lines[-2] == f"pandacea results release {computation_id} --seen {answer['seen']}"
    assert sum(line.startswith("--- artifacts") for line in own) == 1
    assert not any(name in line for line in own for name in ("mean", "Ada", "Bob", "Eve"))
