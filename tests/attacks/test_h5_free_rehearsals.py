"""Free rehearsals fill the results folder in seconds and the database for ever; others' paid results are thrown away for them."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from pandacea.domain.ids import Address, AssetId, LeaseId
from pandacea.domain.job import JobState
from pandacea.domain.limits import MIB
from pandacea.domain.outcome import Artifact, Outcome
from pandacea.domain.product import Mock, Rehearsal
from pandacea.flows.retention import RetentionPorts, apply_retention
from tests.fakes import cached_lease
from tests.jobs.conftest import EXECUTE, OTHER, JobAnswer, Served, results, served
from tests.jobs.stage import Play

__all__ = ["served"]

INPUTS = [{"asset_id": "a", "variable_name": "table"}]
OTHERS_LEASE = LeaseId("0x" + "2e" * 32)
POT = 1024 * MIB
SPARSE = 64 * MIB


@pytest.fixture
def shared(served: Served, tmp_path: Path) -> Served:
    """Two Spenders with leases, a product that may be rehearsed on, and a gigabyte for results."""
    served.rules(rehearsal=Rehearsal.LEASE)
    table = tmp_path / "mock.arrow"
    table.write_bytes(b"mock")
    product = served.world.catalogue.product
    asset = replace(product.assets[AssetId("a")], mock=Mock("0" * 64, tmp_path / "mock.csv", table))
    served.world.catalogue.product = replace(product, assets={**product.assets, AssetId("a"): asset})
    served.world.lease_cache.change_lease(cached_lease(lease_id=OTHERS_LEASE, spender=Address(OTHER.address), max_computations=50))
    object.__setattr__(served.world.submit.results, "max_bytes", POT)
    return served


def leaves_sparse_files(play: Play) -> None:
    """As the attack's script: `truncate` two files to 64 MiB, which cost the box nothing; within the limits the node gave it."""
    files = []
    for place in range(2):
        size = min(SPARSE, play.job.limits.artifact_bytes, play.job.limits.artifacts_bytes // 2)
        path = play.job.results_dir / str(place)
        with path.open("wb") as file:
            file.truncate(size)
        files.append(Artifact(f"f{place}", path, size, hashlib.sha256(b"").hexdigest()))
    play.ends(Outcome(None, "", b"", tuple(files), exit_status=0, code_started=True))


async def acts(served: Served, times: int) -> None:
    """Play that many runs."""
    for _ in range(times):
        leaves_sparse_files(await served.stage.next_play())


async def paid(served: Served) -> JobAnswer:
    """The neighbour's paid computation, whole."""
    body = {**served.body(), "lease_id": OTHERS_LEASE}
    asked = asyncio.create_task(served.send("POST", EXECUTE, body, signer=OTHER))
    done, _ = await asyncio.wait(
        [asked, playing := asyncio.create_task(served.stage.next_play())], return_when=asyncio.FIRST_COMPLETED
    )
    if playing in done:
        playing.result().ends(model=b"paid for")
    else:
        playing.cancel()
    return await asked


async def rehearses_on_and_on(served: Served, times: int, code: str = "print(1)") -> list[JobAnswer]:
    """As it was played: one rehearsal after the other, as fast as they are answered."""
    answers = []
    playing = asyncio.create_task(acts(served, times))
    for number in range(times):
        body = served.body(f"{code}  # {number}", inputs=INPUTS, mode="mock")
        answers.append(await served.send("POST", EXECUTE, body))
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    return answers


def housekeeping(served: Served) -> RetentionPorts:
    world = served.world
    return RetentionPorts(
        world.submit.database,
        served.clock,
        world.submit.results,
        world.submit.limits,
        world.uploads,
        world.release,
        keep_results_seconds=7 * 86_400.0,
    )


async def test_a_neighbour_is_served_and_keeps_what_it_paid_for(shared: Served) -> None:
    """The results folder filled by rehearsals refused everybody's computations, and paid results made room for them."""
    first = await paid(shared)
    assert first.status == 200
    await rehearses_on_and_on(shared, 46)
    assert (await paid(shared)).status == 200
    shared.clock.added += 7200
    await apply_retention(housekeeping(shared))
    answer = await shared.send("GET", results(first.json["computation_id"]), signer=OTHER)
    assert answer.json["results"]["artifacts"] == {"model": "cGFpZCBmb3I="}


async def test_rehearsals_leave_nothing_in_the_database(shared: Served) -> None:
    """As it was played: a megabyte of script and params each. Minutes later their rows are gone."""
    await rehearses_on_and_on(shared, 12, "#" + "x" * 90_000)
    shared.clock.added += 3600
    await apply_retention(housekeeping(shared))
    async with shared.world.submit.database.read_session() as view:
        assert await view.jobs.list_in_state(*JobState) == []
    assert not any(shared.world.submit.results.folder.iterdir())
