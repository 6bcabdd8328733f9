"""A request becomes a job, or a reason."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pandacea.domain.charge import Charge
from pandacea.domain.ids import AssetId
from pandacea.domain.job import JobState
from pandacea.domain.lease import LeaseStatus
from pandacea.domain.product import Rules
from pandacea.errors import ProblemError, Unavailable
from pandacea.flows.submit import submit_job
from pandacea.flows.unit_of_work import Channel
from tests.fakes import NOW, STRANGER, cached_lease, product
from tests.flows.conftest import World, caller, computation_request


async def refused(world: World, code: str, **changes: object) -> None:
    """The request is refused with `code`, and nothing was written."""
    with pytest.raises(ProblemError) as caught:
        await submit_job(computation_request(**changes), caller(), world.submit)
    assert caught.value.code == code
    async with world.submit.database.read_session() as session:
        assert await session.jobs.count_queued() == 0


async def test_an_approved_lease_makes_a_pending_job(world: World) -> None:
    """The row, its reservation and the message that announces it are one transaction; then a worker is woken."""
    accepted = await submit_job(computation_request(), caller(), world.submit)
    async with world.submit.database.read_session() as session:
        job = await session.jobs.find_job(accepted.job.computation_id)
        messages = await session.outbox.fetch_due(Channel.MQTT, NOW)
    assert job is not None
    assert (job.state, job.charge) == (JobState.PENDING, Charge.RESERVED)
    assert job.inputs == [{"asset_id": "a", "variable_name": "table", "commitment": "1" * 64}]
    assert [waiting.message.payload["data"]["state"] for waiting in messages] == ["pending"]
    assert world.woken


async def test_one_request_is_one_computation(world: World) -> None:
    """The id is bound to the signed request: nobody can run twenty times under one request and show the best."""
    first = await submit_job(computation_request(), caller(1), world.submit)
    assert str(first.job.computation_id) != str(first.job.request_hash)
    assert first.job.request_hash == caller(1).request_hash


async def test_the_lease_decides(world: World) -> None:
    """Every reason of `domain.access` reaches the caller with its own code."""
    world.lease_cache.leases.clear()
    await refused(world, "lease-unknown")
    world.lease_cache.change_lease(cached_lease(status=LeaseStatus.CANCELLED))
    await refused(world, "lease-cancelled")
    world.lease_cache.change_lease(cached_lease(committed_count=1))
    await refused(world, "lease-used-up")
    world.lease_cache.change_lease(cached_lease())
    await refused(world, "asset-outside-product", inputs=(("elsewhere", "x"),))
    await refused(world, "product-version-moved", product_version="0x" + "00" * 32)


async def test_a_lease_of_somebody_else_looks_like_none(world: World) -> None:
    """A stranger learns nothing, not even that the lease exists."""
    with pytest.raises(ProblemError) as caught:
        await submit_job(computation_request(), caller(address=STRANGER), world.submit)
    assert caught.value.code == "lease-unknown"


async def test_when_the_node_cannot_know_it_says_so(world: World) -> None:
    """503 and when to come back, never a guess."""
    world.lease_cache.status = replace(world.lease_cache.status, not_ready_reason="The head is 400 s old.", retry_after=7)
    with pytest.raises(Unavailable) as caught:
        await submit_job(computation_request(), caller(), world.submit)
    assert caught.value.retry_after == 7


async def test_two_requests_for_the_last_computation_cannot_both_pass(world: World) -> None:
    """The reservation is counted in the transaction that makes it."""
    answers = await asyncio.gather(
        *(submit_job(computation_request(), caller(n), world.submit) for n in range(8)), return_exceptions=True
    )
    refusals = [answer for answer in answers if isinstance(answer, ProblemError)]
    assert len(answers) - len(refusals) == 1
    assert {refusal.code for refusal in refusals} == {"lease-used-up"}


async def test_a_spender_cannot_fill_the_queue(world: World) -> None:
    """Past the limit a Spender waits; the others do not."""
    world.lease_cache.change_lease(cached_lease(max_computations=100))
    for number in range(4):
        await submit_job(computation_request(), caller(number), world.submit)
    with pytest.raises(ProblemError) as caught:
        await submit_job(computation_request(), caller(9), world.submit)
    assert caught.value.code == "too-many-jobs"


async def test_an_idempotency_key_answers_with_the_first_job(world: World) -> None:
    """A retry of a request that was accepted makes no second computation, however often it comes."""
    first = await submit_job(computation_request(idempotency_key="k"), caller(1), world.submit)
    again = await submit_job(computation_request(idempotency_key="k"), caller(2), world.submit)
    assert again.is_repeated
    assert again.job.computation_id == first.job.computation_id
    with pytest.raises(ProblemError) as caught:
        await submit_job(computation_request(idempotency_key="k", body_sha256="1" * 64), caller(3), world.submit)
    assert caught.value.code == "idempotency-conflict"


async def test_a_product_of_approved_code_runs_no_other(world: World) -> None:
    """The default rule of a product: what its Earner has not read does not run."""
    strict = product(world.catalogue.product.assets[AssetId("a")].path, rules=Rules())
    world.catalogue.product = strict
    await refused(world, "code-not-approved")


async def test_a_lease_for_the_most_computations_there_can_be(world: World) -> None:
    """Solidity's uint32 is more than an SQL integer."""
    world.lease_cache.change_lease(cached_lease(max_computations=2**32 - 1))
    job = (await submit_job(computation_request(), caller(), world.submit)).job
    async with world.submit.database.read_session() as session:
        kept = await session.jobs.find_job(job.computation_id)
    assert kept is not None
    assert kept.max_computations == 2**32 - 1
