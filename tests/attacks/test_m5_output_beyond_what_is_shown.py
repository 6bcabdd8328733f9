"""A held result whose rows stand behind more output than the Earner is shown."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from pandacea.app.control.server import SHOWN_OUTPUT_BYTES, ControlServer
from pandacea.app.render import render_answer
from pandacea.domain.job import JobState
from pandacea.domain.product import Release
from pandacea.errors import Refused
from tests.jobs.conftest import Served

DOTS = b"." * (SHOWN_OUTPUT_BYTES + 464) + b"\n"
ROWS = b"name,age\nAda,37\n"


async def held_behind_dots(served: Served) -> tuple[ControlServer, str]:
    """A computation that printed dots, then rows, and left an artifact."""
    served.rules(release=Release.HOLD)
    computation_id = await served.submit()
    play = await served.stage.next_play()
    play.writes(DOTS + ROWS)
    play.ends(weights__pt=b"1234")
    await served.reaches(computation_id, JobState.HELD)
    none: Any = Mock()  # neither products nor leases are asked for
    return ControlServer(served.world.release, served.clock, none, none), computation_id


async def test_what_is_not_shown_is_said_and_lies_whole_in_a_file(served: Served) -> None:
    """The text names how many bytes it leaves out and the file that has all of them, also where there is nothing to cut."""
    control, computation_id = await held_behind_dots(served)
    answer = await control.handle("results show", {"id": computation_id})
    text = render_answer("results show", answer)
    assert "Ada" not in text
    assert f"{len(DOTS + ROWS) - SHOWN_OUTPUT_BYTES:,} bytes of the output are NOT SHOWN here" in text
    assert answer["output_file"] in text
    folder = served.world.submit.results.path_of(computation_id)
    written = folder / "output"
    assert answer["output_file"] == str(written)
    assert written.read_bytes() == DOTS + ROWS
    assert written.stat().st_mode & 0o777 == 0o600


async def test_nothing_is_released_that_was_not_looked_at(served: Served) -> None:
    """A release names the digest of what was shown; without one, or with another's, nothing leaves."""
    control, computation_id = await held_behind_dots(served)
    for seen in ({}, {"seen": ""}, {"seen": "0" * 64}):
        with pytest.raises(Refused, match="pandacea results show"):
            await control.handle("results release", {"id": computation_id, **seen})
    assert (await served.row(computation_id)).state is JobState.HELD
    answer = await control.handle("results show", {"id": computation_id})
    assert f"pandacea results release {computation_id} --seen {answer['seen']}" in render_answer("results show", answer)
    await control.handle("results release", {"id": computation_id, "seen": answer["seen"]})
    assert (await served.row(computation_id)).state is JobState.COMPLETED


async def test_a_file_that_changed_since_the_run_is_not_released(served: Served) -> None:
    """The bytes on the disk are hashed again when they are looked at and when they are let out."""
    control, computation_id = await held_behind_dots(served)
    seen = (await control.handle("results show", {"id": computation_id}))["seen"]
    (served.world.submit.results.path_of(computation_id) / "0").write_bytes(b"1235")
    with pytest.raises(Refused, match="is not what the run left"):
        await control.handle("results release", {"id": computation_id, "seen": seen})
    assert (await served.row(computation_id)).state is JobState.HELD
