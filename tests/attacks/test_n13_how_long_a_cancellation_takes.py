"""A Spender cancels a held computation and measures how long the answer takes: while the run goes on there is no result to throw away.

The node removed up to 128 MiB of artifacts before it answered, so the time told whether the run was over.
"""

from __future__ import annotations

import asyncio

import pytest

from pandacea.domain.job import JobState
from pandacea.domain.product import Release
from pandacea.files.results import ResultStore
from tests.api.conftest import until
from tests.jobs.conftest import Served, results, served

__all__ = ["served"]


async def test_a_cancellation_is_answered_before_anything_is_removed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was played, on a disk that takes for ever: answered at once; what is to go goes afterwards."""
    served.rules(release=Release.HOLD)
    computation_id = await served.submit()
    (await served.stage.next_play()).ends(weights=b"1234")
    await served.reaches(computation_id, JobState.HELD)
    folder, slow, remove = served.world.submit.results.path_of(computation_id), asyncio.Event(), ResultStore.remove_folder

    async def lingers(store: ResultStore, name: str) -> None:
        await slow.wait()
        await remove(store, name)

    monkeypatch.setattr(ResultStore, "remove_folder", lingers)
    answer = await asyncio.wait_for(served.send("DELETE", results(computation_id)), 5)
    assert answer.status == 204
    assert folder.is_dir()
    slow.set()
    await until(lambda: not folder.exists())
