"""A job becomes a result: charged or not, signed, and put into the outbox, in one transaction."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.charge import FAILED_RUNS_FREE, Charge
from pandacea.domain.ids import BlockNumber, LeaseId
from pandacea.domain.job import Job, JobState
from pandacea.domain.lease import LeaseStatus
from pandacea.domain.outcome import Failure, Outcome, ScriptError
from pandacea.domain.product import Asset, Policy, Release, Rules
from pandacea.errors import Unavailable
from pandacea.flows.cancel import cancel_job
from pandacea.flows.execute import run_next_job
from pandacea.flows.finish import recover_jobs
from pandacea.flows.ports import JobPhase
from pandacea.flows.submit import submit_job
from pandacea.flows.unit_of_work import Channel, ProductStore
from pandacea_sdk.protocol.manifest import hash_manifest
from pandacea_sdk.protocol.receipt import parse_receipt
from tests.fakes import cached_lease, product
from tests.flows.conftest import COMPLETED, World, caller, computation_request

SCRIPT_FAILED = Outcome(
    Failure.SCRIPT_ERROR,
    "The script raised KeyError in line 3.",
    b"",
    script_error=ScriptError("KeyError", 3, "'age of Ada'"),
    exit_status=1,
    code_started=True,
)


async def started(world: World, number: int = 1) -> str:
    """Submit a job that waits."""
    return (await submit_job(computation_request(), caller(number), world.submit)).job.computation_id


async def row(world: World, computation_id: str) -> Job:
    async with world.submit.database.read_session() as session:
        job = await session.jobs.find_job(computation_id)
    assert job is not None
    return job


@pytest.mark.parametrize("seed", [2**32 - 1, 0, None])
async def test_the_seed_of_a_request_is_used_and_stated(world: World, seed: int | None) -> None:
    """The sandbox gets it and the manifest names it; without one both have the one that the computation's id gives."""
    computation_id = (await submit_job(computation_request(seed=seed), caller(1), world.submit)).job.computation_id
    assert await run_next_job(world.execute)
    job = await row(world, computation_id)
    assert job.manifest is not None
    expected = int(computation_id[2:10], 16) % 2**31 if seed is None else seed
    assert (world.sandbox.jobs[-1].seed, json.loads(job.manifest)["sandbox"]["seed"]) == (expected, expected)


async def test_a_completed_run_is_sealed_charged_and_announced(world: World) -> None:
    """Manifest, receipt, charge, MQTT message and commitment belong to one commit."""
    computation_id = await started(world)
    assert await run_next_job(world.execute)
    job = await row(world, computation_id)
    assert (job.state, job.charge, job.output) == (JobState.COMPLETED, Charge.CHARGED, b"hello\n")
    assert job.manifest is not None
    manifest = json.loads(job.manifest)
    assert hash_manifest(manifest) == job.result_hash
    assert (manifest["index"], manifest["max_computations"]) == (1, 1)
    receipt, _ = parse_receipt(job.receipt)
    assert receipt.result_hash == job.result_hash
    async with world.submit.database.read_session() as session:
        told = await session.outbox.fetch_due(Channel.MQTT, world.clock.now())
        commitments = await session.outbox.fetch_due(Channel.CHAIN, world.clock.now())
    assert [waiting.message.payload["data"]["state"] for waiting in told] == ["pending", "running", "completed"]
    assert [waiting.message.payload["result_hash"] for waiting in commitments] == [job.result_hash]


async def test_the_time_of_each_phase_is_observed(world: World) -> None:
    """Waiting from the accepted request to the start, then the run, then its end."""
    observed: list[tuple[JobPhase, float]] = []
    await started(world)
    world.clock.time += 7
    assert await run_next_job(replace(world.execute, observe_phase=lambda *phase: observed.append(phase)))
    assert observed == [(JobPhase.WAITING, 7.0), (JobPhase.RUNNING, 0.0), (JobPhase.FINISHING, 0.0)]


async def test_the_lease_is_asked_again_at_start(world: World) -> None:
    """A lease cancelled while the job waited runs nothing and costs nothing."""
    computation_id = await started(world)
    world.lease_cache.change_lease(cached_lease(status=LeaseStatus.CANCELLED))
    await run_next_job(world.execute)
    job = await row(world, computation_id)
    assert (job.state, job.failure, job.charge) == (JobState.FAILED, Failure.LEASE_LOST, Charge.RETURNED)
    assert not world.sandbox.jobs


async def test_the_contract_is_asked_before_a_run(world: World) -> None:
    """What the contract denies although no event showed it stops the run before its sandbox, uncharged."""
    computation_id = await started(world)
    asked = []

    async def deny(lease_id: LeaseId) -> None:
        asked.append(lease_id)
        world.lease_cache.change_lease(cached_lease(contested=True))

    await run_next_job(replace(world.execute, check_lease=deny))
    job = await row(world, computation_id)
    assert (job.state, job.failure, job.charge) == (JobState.FAILED, Failure.LEASE_LOST, Charge.RETURNED)
    assert asked == [job.lease_id]
    assert not world.sandbox.jobs


async def test_a_job_waits_while_the_node_cannot_know(world: World) -> None:
    """An RPC outage fails no job."""
    computation_id = await started(world)
    world.lease_cache.status = replace(world.lease_cache.status, not_ready_reason="No endpoint answers.")
    assert not await run_next_job(world.execute)
    assert (await row(world, computation_id)).state is JobState.PENDING


@pytest.mark.parametrize("unsure", [{"proof_status": ProofStatus.PENDING}, {"approved_block": BlockNumber(19)}])
async def test_a_lease_that_cannot_be_judged_yet_holds_up_nobody_else(world: World, unsure: dict[str, object]) -> None:
    """Its job waits for the proof, or for the block that a reorg moved the approval to; the next in the queue runs meanwhile."""
    first = await started(world)
    other = LeaseId("0x" + "77" * 32)
    world.lease_cache.change_lease(replace(cached_lease(), lease_id=other))
    second = (await submit_job(computation_request(lease_id=other), caller(2), world.submit)).job.computation_id
    world.lease_cache.change_lease(cached_lease(**unsure))
    assert await run_next_job(world.execute)
    assert (await row(world, first)).state is JobState.PENDING
    assert (await row(world, second)).state is JobState.COMPLETED
    assert not await run_next_job(world.execute)
    world.lease_cache.change_lease(cached_lease())
    assert await run_next_job(world.execute)
    assert (await row(world, first)).state is JobState.COMPLETED


async def test_a_lease_lost_while_running_ends_the_run(world: World) -> None:
    """A cancellation counts from the first block that shows it: the sandbox is destroyed, nothing is kept."""
    world.sandbox.gate = asyncio.Event()
    computation_id = await started(world)
    running = asyncio.create_task(run_next_job(world.execute))
    await world.sandbox.running.wait()
    world.lease_cache.change_lease(cached_lease(status=LeaseStatus.CANCELLED))
    await running
    job = await row(world, computation_id)
    assert (job.state, job.failure, job.charge) == (JobState.FAILED, Failure.LEASE_LOST, Charge.CHARGED)
    assert world.sandbox.destroyed == 1
    assert job.output == b""


@pytest.mark.parametrize(
    "harmless",
    [
        {"status": LeaseStatus.EXECUTED},
        {"status": LeaseStatus.FINALIZED},
        {"expires_at": 1},
        {"committed_count": 1},
        {"approved_block": BlockNumber(19)},
    ],
)
async def test_being_executed_finalized_expired_or_used_up_does_not_stop_a_run(world: World, harmless: dict[str, object]) -> None:
    """An accepted computation is owed to its Spender."""
    world.sandbox.gate = asyncio.Event()
    computation_id = await started(world)
    running = asyncio.create_task(run_next_job(world.execute))
    await world.sandbox.running.wait()
    world.lease_cache.change_lease(cached_lease(**harmless))
    world.sandbox.gate.set()
    await running
    assert (await row(world, computation_id)).state is JobState.COMPLETED


async def test_a_cancelled_run_is_destroyed_and_charged(world: World) -> None:
    """User code ran: cancelling does not give it back."""
    world.sandbox.gate = asyncio.Event()
    computation_id = await started(world)
    running = asyncio.create_task(run_next_job(world.execute))
    await world.sandbox.running.wait()
    await cancel_job(
        await row(world, computation_id), world.submit.database, world.execute.notifier, world.clock, world.submit.results
    )
    await running
    job = await row(world, computation_id)
    assert (job.state, job.charge) == (JobState.CANCELLED, Charge.CHARGED)
    assert world.sandbox.destroyed == 1


async def test_engine_failures_are_retried_and_never_charged(world: World) -> None:
    """Ours, seen before any user code ran: back into the queue, at the end an uncharged failure."""
    world.sandbox.outcome = Unavailable("The engine does not answer.")
    computation_id = await started(world)
    while await run_next_job(world.execute):
        pass
    job = await row(world, computation_id)
    assert (job.state, job.failure, job.charge) == (JobState.FAILED, Failure.SANDBOX_FAILED, Charge.RETURNED)
    assert len(world.sandbox.jobs) == 3


async def test_the_allowance_pays_for_script_errors(world: World) -> None:
    """Five mistakes leave the lease's one computation; the sixth uses it."""
    world.sandbox.outcome = SCRIPT_FAILED
    charges = []
    for number in range(FAILED_RUNS_FREE + 1):
        computation_id = await started(world, number)
        await run_next_job(world.execute)
        charges.append((await row(world, computation_id)).charge)
    assert charges == [Charge.ALLOWANCE] * FAILED_RUNS_FREE + [Charge.CHARGED]


async def test_a_message_that_quotes_data_stays_when_the_product_says_so(world: World) -> None:
    """`show_messages: false`: class and line leave, the message does not."""
    world.sandbox.outcome = SCRIPT_FAILED
    rules = Rules(policy=Policy.ANY_CODE, release=Release.AUTO, show_messages=False)
    world.catalogue.product = product(next(iter(world.catalogue.product.assets.values())).path, rules=rules)
    computation_id = await started(world)
    await run_next_job(world.execute)
    job = await row(world, computation_id)
    assert job.error is not None
    assert (job.error["exception"], job.error["line"]) == ("KeyError", 3)
    assert "Ada" not in json.dumps(job.error) + job.detail
    assert not world.sandbox.jobs[0].capture_stderr


async def test_a_product_that_holds_results_releases_none_by_itself(world: World) -> None:
    """`release: hold`: the Earner looks first."""
    rules = Rules(policy=Policy.ANY_CODE, release=Release.HOLD)
    world.catalogue.product = product(next(iter(world.catalogue.product.assets.values())).path, rules=rules)
    computation_id = await started(world)
    await run_next_job(world.execute)
    assert (await row(world, computation_id)).state is JobState.HELD


async def test_what_a_killed_node_left_running_ends_uncharged(world: World) -> None:
    """Every job reaches a terminal state: the sandbox is gone, nothing was released."""
    world.sandbox.gate = asyncio.Event()
    computation_id = await started(world)
    running = asyncio.create_task(run_next_job(world.execute))
    await world.sandbox.running.wait()
    # What kill -9 leaves: the row as it was last committed.
    assert (await row(world, computation_id)).state is JobState.RUNNING
    await recover_jobs(world.execute)
    job = await row(world, computation_id)
    assert (job.state, job.failure, job.charge) == (JobState.FAILED, Failure.INTERRUPTED, Charge.RETURNED)
    world.sandbox.gate.set()
    await running
    assert (await row(world, computation_id)).state is JobState.FAILED, "a result after the end changes nothing"


async def test_a_job_that_waited_too_long_fails_uncharged(world: World) -> None:
    """The queue's deadline is apart from the run's limit."""
    computation_id = await started(world)
    world.clock.time += 601
    await run_next_job(world.execute)
    job = await row(world, computation_id)
    assert (job.state, job.failure, job.charge) == (JobState.FAILED, Failure.QUEUE_DEADLINE, Charge.RETURNED)


async def test_the_queue_is_fair(world: World) -> None:
    """The Spender with fewer running jobs goes first; COMPLETED is asserted to keep the fixture honest."""
    world.lease_cache.change_lease(cached_lease(max_computations=10))
    first, second = await started(world, 1), await started(world, 2)
    assert world.sandbox.outcome == COMPLETED
    await run_next_job(world.execute)
    assert (await row(world, first)).state is JobState.COMPLETED
    assert (await row(world, second)).state is JobState.PENDING


class UnavailableProducts:
    """A database that does not say where a table lies, so many times."""

    def __init__(self, times: int, products: ProductStore) -> None:
        self.left, self._products = times, products

    async def find_asset_by_commitment(self, commitment: str) -> Asset | None:
        self.left -= 1
        if self.left >= 0:
            raise Unavailable("The node's database does not answer (ConnectionError).")
        return await self._products.find_asset_by_commitment(commitment)


async def test_a_job_whose_tables_could_not_be_looked_up_waits_again(world: World) -> None:
    """The database went away between the claim and the sandbox: the row is not left RUNNING, and the next try completes it."""
    computation_id = await started(world)
    away = UnavailableProducts(1, world.execute.products)
    ports = replace(world.execute, products=away)  # type: ignore[arg-type]  # the one method that a run asks
    assert await run_next_job(ports)
    job = await row(world, computation_id)
    assert (job.state, job.charge) == (JobState.PENDING, Charge.RESERVED)
    assert await run_next_job(ports)
    assert (await row(world, computation_id)).state is JobState.COMPLETED
