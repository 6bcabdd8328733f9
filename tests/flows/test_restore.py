"""A database put back from a backup runs nothing again that may have run, and signs nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import SQLModel

import pandacea.store.tables
from pandacea.domain.chain_view import NO_HASH, BlockRef, ChainEvent
from pandacea.domain.charge import Charge
from pandacea.domain.ids import BlockNumber, ComputationId, Hash32, LeaseId, LeaseKey, Timestamp, Wei
from pandacea.domain.job import Job, JobState, Mode
from pandacea.domain.lease import ResultCommitted
from pandacea.domain.lease_record import LeaseRecord
from pandacea.domain.outcome import Failure, Outcome
from pandacea.errors import Broken
from pandacea.files.generation import GenerationFile
from pandacea.flows.execute import run_next_job
from pandacea.flows.finish import COMMITTED_DETAIL
from pandacea.flows.ports import SandboxEvent, SandboxJob
from pandacea.flows.restore import PUT_BACK_DETAIL, RestorePorts, begin_generation
from pandacea.flows.submit import submit_job
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.database_engine import DatabaseEngine
from tests.fakes import CHAIN_ID, CONTRACT, EARNER, LEASE_ID, NOW, SPENDER, cached_lease
from tests.flows.conftest import World, caller, computation_request
from tests.flows.test_audit_log import remove_guard

SKEW = 30


def start_ports(world: World) -> RestorePorts:
    """What a start looks at."""
    return RestorePorts(world.submit.database, world.clock, world.execute.generation_file, SKEW)


async def submitted(world: World, number: int, **changes: Any) -> ComputationId:
    """A job that waits; the lease has room for it."""
    world.lease_cache.leases[LEASE_ID] = cached_lease(max_computations=9)
    return (await submit_job(computation_request(**changes), caller(number), world.submit)).job.computation_id


async def row(world: World, computation_id: str) -> Job:
    async with world.submit.database.read_session() as session:
        job = await session.jobs.find_job(computation_id)
    assert job is not None
    return job


async def back_up(database: DatabaseEngine) -> dict[str, list[dict[str, Any]]]:
    """Copy every row, as `sqlite3 .backup` and `pg_dump` do beside a running node."""
    assert pandacea.store.tables
    async with database.read_connection() as connection:
        return {
            table.name: [dict(found) for found in (await connection.execute(table.select())).mappings()]
            for table in SQLModel.metadata.sorted_tables
        }


async def put_back(database: DatabaseEngine, copy: dict[str, list[dict[str, Any]]]) -> None:
    """Replace every row by the copy's."""
    async with database.write_transaction() as tx:
        await remove_guard(tx.connection.exec_driver_sql, database.dialect)
        for table in reversed(SQLModel.metadata.sorted_tables):
            await tx.connection.execute(table.delete())
        for table in SQLModel.metadata.sorted_tables:
            if copy[table.name]:
                await tx.connection.execute(table.insert(), copy[table.name])
        await tx.commit()


async def test_what_waited_in_the_backup_and_ran_since_is_ended_and_not_run_again(world: World, database: DatabaseEngine) -> None:
    """Within one start, too: the run itself makes every copy of the database from before it an old one."""
    await begin_generation(start_ports(world))
    waiting = await submitted(world, 1)
    copy = await back_up(database)
    assert await run_next_job(world.execute)
    first = await row(world, waiting)
    assert first.receipt is not None

    await put_back(database, copy)
    assert (await row(world, waiting)).state is JobState.PENDING
    await begin_generation(start_ports(world))
    ended = await row(world, waiting)
    assert (ended.state, ended.failure, ended.charge) == (JobState.FAILED, Failure.INTERRUPTED, Charge.RETURNED)
    assert (ended.detail, ended.receipt, ended.manifest) == (PUT_BACK_DETAIL, None, None)
    assert not await run_next_job(world.execute)
    assert len(world.sandbox.jobs) == 1


async def test_a_job_that_runs_in_the_backup_is_ended_unsigned_even_if_some_of_it_was_shown(
    world: World, database: DatabaseEngine
) -> None:
    """At an ordinary restart its live output would be charged and signed for; the run may have been signed since."""
    await begin_generation(start_ports(world))
    running = await submitted(world, 1)
    async with world.submit.database.unit_of_work() as work:
        await work.jobs.change_state(running, JobState.PENDING, JobState.RUNNING, started_at=NOW, attempt=1)
        await work.jobs.mark_charged(running)
        assert await work.jobs.mark_shown(running, NOW)
        await work.commit()
    copy = await back_up(database)
    await begin_generation(start_ports(world))
    await put_back(database, copy)
    await begin_generation(start_ports(world))
    ended = await row(world, running)
    assert (ended.state, ended.charge, ended.receipt) == (JobState.FAILED, Charge.RETURNED, None)


async def test_a_plain_restart_ends_nothing_that_waits(world: World) -> None:
    """The database's copy is the file's, or one ahead of it when the node was killed between the two."""
    await begin_generation(start_ports(world))
    waiting = await submitted(world, 1)
    assert await begin_generation(start_ports(world)) == 0
    async with world.submit.database.unit_of_work() as work:  # killed before the file was written
        await work.generation.advance()
        await work.commit()
    assert await begin_generation(start_ports(world)) == 0
    assert (await row(world, waiting)).state is JobState.PENDING


async def test_each_leased_run_makes_every_copy_from_before_it_old(world: World) -> None:
    """One higher for each start and each run; where nothing waits, nothing is written."""
    await begin_generation(start_ports(world))
    await submitted(world, 1)
    await run_next_job(world.execute, (Mode.MOCK,))
    assert world.execute.generation_file.read() == 1
    await run_next_job(world.execute, (Mode.LIVE,))
    assert world.execute.generation_file.read() == 2


async def test_a_database_without_its_file_counts_as_put_back(world: World) -> None:
    """On a new machine there is the backup and nothing beside it. A database on which no node has started has nothing to end."""
    assert await begin_generation(start_ports(world)) == 0
    waiting = await submitted(world, 1)
    world.execute.generation_file.path.unlink()
    assert await begin_generation(start_ports(world)) == int(NOW) + 1 + SKEW
    assert (await row(world, waiting)).failure is Failure.INTERRUPTED


async def test_requests_signed_before_the_restore_stay_refused_through_later_starts(world: World, database: DatabaseEngine) -> None:
    """The floor is kept by the database: a second restart within the window must not forget it."""
    await begin_generation(start_ports(world))
    copy = await back_up(database)
    await begin_generation(start_ports(world))
    await put_back(database, copy)
    floor = await begin_generation(start_ports(world))
    assert floor == int(NOW) + 1 + SKEW
    world.clock.time += 5
    assert await begin_generation(start_ports(world)) == floor


async def test_a_start_killed_while_it_ends_jobs_is_finished_by_the_next(world: World, database: DatabaseEngine) -> None:
    """The number is written last."""
    await begin_generation(start_ports(world))
    jobs = [await submitted(world, number) for number in (1, 2)]
    copy = await back_up(database)
    await begin_generation(start_ports(world))
    await put_back(database, copy)
    async with world.submit.database.unit_of_work() as work:  # as far as the killed one came
        await work.jobs.change_state(
            jobs[0], JobState.PENDING, JobState.FAILED, charge=Charge.RETURNED, failure=Failure.INTERRUPTED
        )
        await work.commit()
    await begin_generation(start_ports(world))
    assert [(await row(world, job)).state for job in jobs] == [JobState.FAILED] * 2


async def test_a_run_whose_generation_the_disk_does_not_take_does_not_begin(world: World, tmp_path: Path) -> None:
    """Were it to run all the same, a backup from before it would not be known as old."""
    await begin_generation(start_ports(world))
    waiting = await submitted(world, 1)
    world.execute.generation_file.path.unlink()
    world.execute.generation_file.path.with_name("generation.new").mkdir()  # as a full disk: the neighbour cannot be written
    assert await run_next_job(world.execute)
    assert world.sandbox.jobs == []
    assert (await row(world, waiting)).state is JobState.PENDING
    with pytest.raises(Broken, match=r"generation cannot be written"):
        await begin_generation(start_ports(world))


async def test_a_file_that_holds_no_number_is_named(world: World) -> None:
    """It is never guessed at: the operator may delete it, which has the careful meaning."""
    world.execute.generation_file.path.write_text("many\n")
    with pytest.raises(Broken, match=r"generation cannot be read as a number .* Delete it"):
        await begin_generation(start_ports(world))


async def test_the_file_only_grows(tmp_path: Path) -> None:
    """Two workers write in any order."""
    file = GenerationFile(tmp_path)
    assert file.read() is None
    for number, kept in ((4, 4), (3, 4), (5, 5)):
        await file.raise_to(number)
        assert file.read() == kept
    assert file.path.stat().st_mode & 0o077 == 0


async def committed(database: DatabaseEngine, computation_id: ComputationId, *, settled: bool) -> None:
    """A result on the chain, as the follower stores it: an event above the base, or a lease's row."""
    genesis = BlockRef(BlockNumber(0), NO_HASH, NO_HASH, Timestamp(0))
    store = SqlChainStore(database, CHAIN_ID, CONTRACT)
    await store.open_deployment(EARNER, "v1", 0, genesis)
    block = BlockRef(BlockNumber(1), Hash32("0x" + "b1" * 32), NO_HASH, Timestamp(1))
    event = ResultCommitted(LEASE_ID, computation_id, Hash32("0x" + "11" * 32))
    async with store.unit_of_work() as tx:
        if settled:
            record = LeaseRecord(LeaseKey(CHAIN_ID, CONTRACT, LEASE_ID), SPENDER, EARNER, Wei(1), BlockNumber(1), seen_at=1)
            record.committed = frozenset({computation_id})
            await tx.leases.save_leases({LeaseId(LEASE_ID): record}, {})
        else:
            await tx.chain.append_blocks([block], [ChainEvent(BlockNumber(1), block.hash, 0, Hash32("0x" + "77" * 32), event)])
        await tx.commit()


@pytest.mark.parametrize("settled", [False, True])
async def test_a_computation_that_the_chain_shows_as_done_is_not_run(world: World, database: DatabaseEngine, settled: bool) -> None:
    """The second defence, for a machine whose whole disk was put back: file and database agree, the chain knows better."""
    waiting, other = await submitted(world, 1), await submitted(world, 2)
    await committed(database, waiting, settled=settled)
    assert await run_next_job(world.execute)
    assert await run_next_job(world.execute)
    ended = await row(world, waiting)
    assert (ended.state, ended.failure, ended.detail) == (JobState.FAILED, Failure.INTERRUPTED, COMMITTED_DETAIL)
    assert (ended.charge, ended.receipt) == (Charge.RETURNED, None)
    assert (await row(world, other)).state is JobState.COMPLETED
    assert [job.computation_id for job in world.sandbox.jobs] == [other]


async def test_a_result_that_was_committed_while_it_ran_is_not_signed(world: World, database: DatabaseEngine) -> None:
    """Another copy of the node was faster: this one's manifest would be another, and two receipts for one computation are fraud."""
    waiting = await submitted(world, 1)
    run_job = world.sandbox.run_job

    async def slower(job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        await committed(database, waiting, settled=False)
        return await run_job(job, on_event)

    world.sandbox.run_job = slower  # type: ignore[method-assign]
    assert await run_next_job(world.execute)
    ended = await row(world, waiting)
    assert (ended.state, ended.failure, ended.charge) == (JobState.FAILED, Failure.INTERRUPTED, Charge.RETURNED)
    assert (ended.receipt, ended.manifest, ended.output) == (None, None, b"")
