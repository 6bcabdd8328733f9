"""What waits for the Earner: a lease until this node would run it, a script until it is approved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pandacea.domain.code_approval import CodeState
from pandacea.domain.product import Policy
from pandacea_sdk import waiting
from pandacea_sdk.async_client import AsyncPandaceaClient
from pandacea_sdk.client import PandaceaClient
from pandacea_sdk.errors import CodeError, LeaseError, UsageError
from tests.api.served import ServedNode, served
from tests.fakes import LEASE_ID
from tests.sdk.conftest import LEASE, FakeNode, problem_response

SEEN = {"status": "approved", "used": 1, "reserved": 2, "max_computations": 20, "expires_at": 2_000_000_000}
INS = {"table": "a"}


def train(table: Any) -> Any:
    return len(table)


@pytest.fixture
def client(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[PandaceaClient]:
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.01)
    with PandaceaClient(node.url, key="11" * 32) as made:
        yield made


def answers(node: FakeNode, *each: web.Response | dict[str, Any]) -> None:
    """What the node answers about a lease or a script, in turn; the last again and again."""
    left = list(each)

    async def hook(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | dict[str, Any] | None:
        if not any(part in request.path for part in ("/leases/", "/privacy/code")):
            return None
        return left.pop(0) if len(left) > 1 else left[0]

    node.hook = hook


def test_a_lease_is_waited_for_until_the_node_would_run_it(node: FakeNode, client: PandaceaClient) -> None:
    """Unknown, then approved and not deep enough, then usable; its status says what is left."""
    unknown, waits = problem_response("lease-unknown", 404), SEEN | {"may_run": False, "reason": "3 blocks are missing."}
    answers(node, unknown, waits, SEEN | {"may_run": True, "reason": None})
    lease = client.open_lease(LEASE).wait(30)
    assert lease.id == LEASE
    assert lease.bill is None
    assert lease.status() == waiting.LeaseUsage("approved", 1, 2, 17, 2_000_000_000, may_run=True, reason=None)


def test_a_lease_that_is_not_approved_in_time_says_why(node: FakeNode, client: PandaceaClient) -> None:
    """The node's reason is in the sentence, and waiting can go on."""
    answers(node, SEEN | {"may_run": False, "reason": "3 blocks are missing."})
    with pytest.raises(waiting.StillWaiting, match="3 blocks are missing"):
        client.open_lease(LEASE).wait(0.05)


def test_a_lease_that_ended_is_not_waited_for(node: FakeNode, client: PandaceaClient) -> None:
    """Cancelled stays cancelled, and expired expired."""
    for change, words in (({"status": "cancelled"}, "is cancelled: It ended"), ({"expires_at": 1}, "is expired: It ended")):
        answers(node, SEEN | {"may_run": False, "reason": "It ended."} | change)
        with pytest.raises(LeaseError, match=words):
            client.open_lease(LEASE).wait()
    with pytest.raises(UsageError, match="is not a lease id"):
        client.open_lease("0x12")


def test_a_rejected_script_carries_the_earners_reason(node: FakeNode, client: PandaceaClient) -> None:
    """One class for "change the script"."""
    answers(node, {"code_id": "0x" + "12" * 32, "status": "pending"}, {"status": "rejected", "reason": "It prints rows."})
    handle = client.submit_code(train, "p", INS)
    with pytest.raises(CodeError, match="It prints rows"):
        handle.wait_approved()


def test_a_script_on_which_nobody_decides_is_still_waiting(node: FakeNode, client: PandaceaClient) -> None:
    """After the hours given; nothing is lost."""
    answers(node, {"code_id": "0x" + "12" * 32, "status": "pending"})
    with pytest.raises(waiting.StillWaiting, match="nobody decided yet"):
        client.submit_code(train, {"productId": "p"}, INS).wait_approved(hours=0.00001)
    with pytest.raises(UsageError, match="product is neither"):
        client.submit_code(train, {}, INS)


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedNode]:
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.01)
    with served(tmp_path) as made:
        product = made.world.catalogue.product
        made.world.catalogue.product = replace(product, rules=replace(product.rules, policy=Policy.APPROVED_CODE))
        yield made


async def test_the_text_that_was_approved_runs(real: ServedNode) -> None:
    """A function is handed in, approved by the Earner, and run under a lease by its handle."""
    async with AsyncPandaceaClient(real.url, key="11" * 32) as c:
        lease = await c.open_lease(LEASE_ID).wait()
        with pytest.raises(CodeError):
            await c.run(train, lease, INS)
        product_id = str(real.world.catalogue.product.product_id)
        handle = await c.submit_code(train, {"productId": product_id}, INS)
        assert await handle.status() == "pending"
        waits = asyncio.create_task(handle.wait_approved(hours=0.01))
        await asyncio.to_thread(real.decide, handle.id, CodeState.APPROVED)
        await waits
        assert (await c.run(train, lease, INS)).success
        assert (await lease.status()).used == 1
