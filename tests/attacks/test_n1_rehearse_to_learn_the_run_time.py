"""A Spender's free rehearsal waits for the same Spender's held run, and starts at the moment at which that is over.

Rehearsals have a worker of their own so that they tell nothing of held runs; but where one Spender has one run at a time (a node of two
workers or of one), runs of both kinds were counted together, so the worker of rehearsals stood idle until the held run ended.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pandacea.app.workers import max_running_per_spender
from pandacea.domain.ids import AssetId
from pandacea.domain.job import JobState, Mode
from pandacea.domain.product import Mock, Policy, Release, Rules
from pandacea.flows.execute import run_next_job
from pandacea.flows.rehearse import rehearse
from pandacea.flows.submit import submit_job
from tests.fakes import LEASE_ID, cached_lease
from tests.flows.conftest import World, caller, computation_request, world

__all__ = ["world"]


def holding(world: World) -> World:
    """A node of two workers, and a product that holds every result and has mock rows."""
    offered = world.catalogue.product
    path = offered.assets[AssetId("a")].path
    asset = replace(offered.assets[AssetId("a")], mock=Mock("0" * 64, path, path))
    rules = Rules(policy=Policy.ANY_CODE, release=Release.HOLD)
    world.catalogue.product = replace(offered, rules=rules, assets={AssetId("a"): asset})
    world.lease_cache.leases[LEASE_ID] = cached_lease(max_computations=10)
    return replace(world, execute=replace(world.execute, max_running_per_spender=max_running_per_spender(2)))


async def begins(world: World, mode: Mode) -> asyncio.Task[bool]:
    """A worker of this kind, which took a run and is in the middle of it."""
    world.sandbox.gate, world.sandbox.running = asyncio.Event(), asyncio.Event()
    working = asyncio.create_task(run_next_job(world.execute, (mode,)))
    began = asyncio.create_task(world.sandbox.running.wait())
    await asyncio.wait([working, began], timeout=5, return_when=asyncio.FIRST_COMPLETED)
    began.cancel()
    assert not working.done(), f"the worker of {mode} runs found none that may start"
    return working


async def test_a_rehearsal_starts_beside_the_held_run_of_its_spender(world: World) -> None:
    """As it was played: it starts at once, whether the run that will be held is over or not."""
    world = holding(world)
    held = (await submit_job(computation_request(), caller(1), world.submit)).job
    await begins(world, Mode.LIVE)
    await rehearse(computation_request(mode=Mode.MOCK), caller(2), world.submit)
    rehearsing = await begins(world, Mode.MOCK)
    async with world.submit.database.read_session() as view:
        row = await view.jobs.find_job(held.computation_id)
    assert row is not None
    assert row.state is JobState.RUNNING
    rehearsing.cancel()


async def test_a_paid_run_starts_beside_a_rehearsal_of_its_spender(world: World) -> None:
    """Nor does what is free keep waiting what is paid for."""
    world = holding(world)
    await rehearse(computation_request(mode=Mode.MOCK), caller(1), world.submit)
    await begins(world, Mode.MOCK)
    await submit_job(computation_request(), caller(2), world.submit)
    (await begins(world, Mode.LIVE)).cancel()
