"""Whose turn it is: fewest running, then least time on the machine lately, and never every worker for one Spender."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count

import pytest

from pandacea.app.workers import MAX_WORKERS, count_workers, max_running_per_spender
from pandacea.config.sections import LimitsSection, PrivacySection
from pandacea.domain.ids import Address, ComputationId, LeaseId
from pandacea.domain.job import JobState
from pandacea.domain.limits import MIB
from pandacea.domain.product import Release
from pandacea.flows.accept_job import QueueLimits
from pandacea.flows.execute import run_next_job
from pandacea.flows.release import release_result
from pandacea.flows.submit import submit_job
from pandacea.flows.unit_of_work import StartCriteria
from tests.fakes import LEASE_ID, SPENDER, cached_lease
from tests.flows.conftest import World, caller, computation_request

NEWCOMER, THIRD = Address("0x" + "a1" * 20), Address("0x" + "a2" * 20)
LEASES = {SPENDER: LEASE_ID, NEWCOMER: LeaseId("0x" + "a1" * 32), THIRD: LeaseId("0x" + "a2" * 32)}
NUMBERS = count(1)


@pytest.fixture
def shared(world: World) -> World:
    """Three Spenders with a lease each, and a queue in which each may have sixteen."""
    for spender, lease_id in LEASES.items():
        world.lease_cache.leases[lease_id] = cached_lease(lease_id=lease_id, spender=spender, max_computations=100)
    return replace(world, submit=replace(world.submit, queue=QueueLimits(16, 100, 3600.0)))


async def asks(world: World, spender: Address) -> ComputationId:
    """A computation of a Spender, waiting; each is asked for a second after the one before."""
    world.clock.time += 1
    accepted = await submit_job(computation_request(lease_id=LEASES[spender]), caller(next(NUMBERS), spender), world.submit)
    return accepted.job.computation_id


async def runs(world: World, seconds: float) -> None:
    """The next job runs for so long."""
    gate = world.sandbox.gate = asyncio.Event()
    world.sandbox.running.clear()
    running = asyncio.create_task(run_next_job(world.execute))
    await asyncio.wait_for(world.sandbox.running.wait(), 10)
    world.clock.time += seconds
    gate.set()
    await running
    world.sandbox.gate = None


async def turns(world: World, number: int) -> list[str]:
    """Run so many jobs, one after the other; whose they were."""
    done: list[str] = []
    for _ in range(number):
        before = len(world.sandbox.jobs)
        await run_next_job(world.execute)
        async with world.submit.database.read_session() as session:
            job = await session.jobs.find_job(world.sandbox.jobs[before].computation_id)
        assert job is not None
        done.append(job.spender)
    return done


async def test_whoever_used_the_machine_least_goes_first(shared: World) -> None:
    """A long script and a second one asked for first: the newcomer's, asked for last, does not wait for the second."""
    await asks(shared, SPENDER)
    await runs(shared, 50)
    await asks(shared, SPENDER)
    await asks(shared, NEWCOMER)
    assert await turns(shared, 2) == [NEWCOMER, SPENDER]


async def test_time_counts_and_not_runs(shared: World) -> None:
    """Five short runs took less than one long one."""
    for _ in range(5):
        await asks(shared, THIRD)
        await runs(shared, 1)
    await asks(shared, SPENDER)
    await runs(shared, 50)
    await asks(shared, SPENDER)
    await asks(shared, THIRD)
    assert await turns(shared, 2) == [THIRD, SPENDER]


async def test_what_is_long_past_is_forgotten(shared: World) -> None:
    """An hour later the order is that of asking again."""
    await asks(shared, SPENDER)
    await runs(shared, 50)
    shared.clock.time += 3601
    await asks(shared, SPENDER)
    await asks(shared, NEWCOMER)
    assert await turns(shared, 2) == [SPENDER, NEWCOMER]


async def test_a_held_result_counts_for_its_run_and_not_for_the_wait(shared: World) -> None:
    """The Earner decided an hour after a run of a second: that hour is not its Spender's."""
    rules = replace(shared.catalogue.product.rules, release=Release.HOLD)
    shared.catalogue.product = replace(shared.catalogue.product, rules=rules)
    held = await asks(shared, NEWCOMER)
    await runs(shared, 1)
    shared.clock.time += 1800
    await asks(shared, SPENDER)
    await runs(shared, 50)
    await release_result(held, shared.release)
    await asks(shared, SPENDER)
    await asks(shared, NEWCOMER)
    assert await turns(shared, 2) == [NEWCOMER, SPENDER]


async def test_one_spender_never_takes_every_worker(shared: World) -> None:
    """Sixteen endless scripts of one Spender, two workers: one runs, and the newcomer's starts at once beside it."""
    world = replace(shared, execute=replace(shared.execute, max_running_per_spender=max_running_per_spender(2)))
    for _ in range(16):
        await asks(world, SPENDER)
    gate = world.sandbox.gate = asyncio.Event()
    endless = asyncio.create_task(run_next_job(world.execute))
    await asyncio.wait_for(world.sandbox.running.wait(), 10)
    assert not await run_next_job(world.execute), "the second worker waits, though fifteen do"
    newcomers = await asks(world, NEWCOMER)
    world.sandbox.running.clear()
    beside = asyncio.create_task(run_next_job(world.execute))
    await asyncio.wait_for(world.sandbox.running.wait(), 10)
    assert world.sandbox.jobs[-1].computation_id == newcomers
    gate.set()
    await asyncio.gather(endless, beside)


async def test_a_job_that_waited_too_long_ends_though_its_spender_may_start_none(shared: World) -> None:
    """Every job ends: the limit on what runs keeps none in the queue for ever."""
    world = replace(shared, execute=replace(shared.execute, max_running_per_spender=1))
    first, second = await asks(world, SPENDER), await asks(world, SPENDER)
    gate = world.sandbox.gate = asyncio.Event()
    running = asyncio.create_task(run_next_job(world.execute))
    await asyncio.wait_for(world.sandbox.running.wait(), 10)
    world.clock.time += 3601
    assert await run_next_job(world.execute)
    gate.set()
    await running
    async with world.submit.database.read_session() as session:
        ended = [await session.jobs.find_job(computation_id) for computation_id in (first, second)]
    assert [job and job.state for job in ended] == [JobState.COMPLETED, JobState.FAILED]


async def test_whose_room_is_full_waits_and_holds_up_nobody(shared: World) -> None:
    """The order asks for Spenders whose results leave no room; others behind them go on."""
    await asks(shared, SPENDER)
    newcomers = await asks(shared, NEWCOMER)
    async with shared.submit.database.read_session() as session:
        turn = await session.jobs.find_next_pending(StartCriteria(shared.clock.now(), 1, full_spenders=[SPENDER]))
    assert turn is not None
    assert turn.computation_id == newcomers


@pytest.mark.parametrize(
    ("processors", "memory_mb", "cpus", "expected"),
    [
        (1, 65_536, 1.0, 1),
        (2, 65_536, 1.0, 2),
        (4, 65_536, 2.0, 2),
        (64, 262_144, 1.0, MAX_WORKERS),
        (8, 4096, 1.0, 2),
        (8, 512, 1.0, 1),
    ],
)
def test_workers_are_as_many_as_the_machine_holds(processors: int, memory_mb: int, cpus: float, expected: int) -> None:
    """auto: each with its processors, and half of the memory for all of them; at least one, wherever it runs."""
    privacy = PrivacySection(limits=LimitsSection(cpus=cpus))
    assert count_workers(privacy, processors=processors, memory_bytes=memory_mb * MIB) == expected


def test_a_stated_number_of_workers_stands() -> None:
    """The operator knows the machine."""
    assert count_workers(PrivacySection(workers=5), processors=1, memory_bytes=0) == 5
    assert [max_running_per_spender(number) for number in (1, 2, 8)] == [1, 1, 7]
