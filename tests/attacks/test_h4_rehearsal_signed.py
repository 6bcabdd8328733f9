"""A rehearsal whose first box fails is charged, signed as a run on the leased rows, and committed on-chain."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pandacea.domain.charge import Charge
from pandacea.domain.job import JobState, Mode
from pandacea.domain.product import Rehearsal
from pandacea.errors import Unavailable
from pandacea.flows.sign_result import ExecutedInputs, SigningRefused
from pandacea.flows.unit_of_work import Channel
from pandacea.store.unit_of_work import SqlDatabase
from tests.flows.conftest import COMPLETED
from tests.jobs.conftest import EXECUTE, Served, served
from tests.jobs.test_rehearsal import INPUTS, rehearses

__all__ = ["served"]


async def test_a_rehearsal_stays_free_and_unsigned_through_a_retry(served: Served, tmp_path: Path) -> None:
    """The engine fails once before the script, the second box runs it: on mock rows, for nothing, and nobody signs."""
    rehearses(served, tmp_path, Rehearsal.LEASE)
    served.lease(max_computations=1)
    served.stage.starts = False
    waiting = asyncio.create_task(served.send("POST", EXECUTE, served.body("print(table)", inputs=INPUTS, mode="mock")))
    (await served.stage.next_play()).end.set_exception(Unavailable("The engine hiccups."))
    served.stage.starts = True
    second = await served.stage.next_play()
    assert [table.path.name for table in second.job.inputs] == ["mock.arrow"]
    second.ends()
    answer = (await waiting).json
    job = await served.reaches(answer["computation_id"], JobState.COMPLETED)
    assert job.attempt == 2, "it was tried again"
    assert (job.mode, job.charge) == (Mode.MOCK, Charge.FREE)
    assert (job.manifest, job.receipt, job.result_hash) == (None, None, None)
    async with served.world.submit.database.read_session() as view:
        assert await view.outbox.fetch_due(Channel.CHAIN, served.clock.now()) == []
    lease = (await served.send("GET", f"/api/v1/leases/{job.lease_id}")).json
    assert (lease["used"], lease["may_run"]) == (0, True)


async def test_neither_the_seal_nor_the_database_takes_a_rehearsal(served: Served, tmp_path: Path) -> None:
    """Whatever asks for it: the sealer refuses the mode, `ExecutedInputs` the rows, the database the charge."""
    rehearses(served, tmp_path, Rehearsal.LEASE)
    identity = await served.submit("print(table)", inputs=INPUTS, mode="mock")
    play = await served.stage.next_play()
    job = await served.row(identity)
    with pytest.raises(SigningRefused, match="mock"):
        served.world.execute.signer.sign_result(
            job, ExecutedInputs.from_job(job), COMPLETED, index=1, finished_at=0, audit_head="0" * 64
        )
    with pytest.raises(SigningRefused, match="no commitment"):
        ExecutedInputs.from_sandbox_job(play.job)
    books = served.world.submit.database
    assert isinstance(books, SqlDatabase)
    for values in ({"charge": Charge.RESERVED}, {"charge": Charge.CHARGED}, {"charge": Charge.FREE, "receipt": {"a": 1}}):
        async with books.unit_of_work() as work:
            with pytest.raises(ValueError, match="rehearsal"):
                await work.jobs.change_state(identity, JobState.RUNNING, JobState.COMPLETED, **values)
    play.ends()
    assert replace(await served.reaches(identity, JobState.COMPLETED)).charge is Charge.FREE
