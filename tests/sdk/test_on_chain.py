"""A result held against the contract: both versions of it, and an answer that is not lost when the chain cannot be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pandacea_sdk.client import AsyncPandaceaClient
from pandacea_sdk.errors import NodeUnavailable, PandaceaError, UntrustedResult
from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.receipt import derive_computation_id
from tests.chain.anvil import ANVIL, EARNER, KEYS, OPERATOR, SPENDER, V0, V1, Anvil, AnvilAgreement
from tests.faults.proxy import FaultProxy, ProxyAnswer
from tests.prerequisites import skip_or_fail
from tests.sdk.conftest import FakeNode, sign_answer

INPUTS = {"table": "a"}


@dataclass
class LeasedNode:
    """A node that answers under a lease of a real contract, and a Spender whose endpoint is a proxy."""

    node: FakeNode
    proxy: FaultProxy
    agreement: AnvilAgreement
    script: Path
    signer: KeySigner
    first: bool
    lease_id: str = ""

    async def answer(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        """The fake node's answer, made one of this contract, Earner and lease."""
        if request.path == "/.well-known/pandacea":
            return body | {"contract": self.agreement.address}
        if "manifest" not in body:
            return None
        made = dict(body["manifest"])
        computation = derive_computation_id(31337, self.agreement.address, made["lease_id"], made["request_hash"])
        made |= {"contract": self.agreement.address, "earner": EARNER.address.lower(), "computation_id": computation}
        answer = sign_answer(made, body["results"], self.signer)
        answer["receipt"] = self._receipt(answer)
        self.node.jobs[computation] = body
        return answer | {"on_chain": {"contract_version": "a lie"}} | ({"status": body["status"]} if "status" in body else {})

    def _receipt(self, answer: dict[str, Any]) -> dict[str, Any]:
        from pandacea_sdk.protocol.receipt import Receipt

        told = answer["receipt"]
        names = ("lease_id", "computation_id", "request_hash", "product_version", "result_hash")
        return dict(Receipt(31337, self.agreement.address, *(told[name] for name in names)).sign(self.signer))

    def client(self, **options: Any) -> AsyncPandaceaClient:
        whole = {"rpc_url": self.proxy.url, "contract": self.agreement.address, **options}
        return AsyncPandaceaClient(self.node.url, KEYS[2], **whole)

    async def run(self, client: AsyncPandaceaClient) -> dict[str, Any]:
        return await client.execute_computation(self.lease_id, self.script, INPUTS)


@pytest.fixture
async def leased(node: FakeNode, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[LeasedNode]:
    """Its parameter is the contract's version."""
    if not ANVIL.exists():
        skip_or_fail("anvil is not installed: npm install in tests/npm")
    script = tmp_path / "script.py"
    script.write_text("print('done')\n", encoding="utf-8")
    async with Anvil() as anvil, FaultProxy(anvil.url) as proxy:
        first = getattr(request, "param", "v1") == "v0"
        agreement = await anvil.deploy_agreement(V0 if first else V1)
        made = LeasedNode(node, proxy, agreement, script, KeySigner(KEYS[1]), first)
        made.lease_id = await (agreement.create_v0() if first else agreement.create())
        await agreement.approve(made.lease_id)
        node.hook = made.answer
        yield made


both = pytest.mark.parametrize("leased", ["v0", "v1"], indirect=True)
first_version = pytest.mark.parametrize("leased", ["v0"], indirect=True)


async def test_what_was_compared_is_said_in_the_result(leased: LeasedNode) -> None:
    """By the SDK: what a node writes in that place is taken out, with an endpoint or without one."""
    async with leased.client() as client:
        answer = await leased.run(client)
        assert answer["on_chain"] == {
            "contract_version": "v1",
            "compared": ("spender", "earner", "signer", "commitment"),
            "committed": None,
        }
        checked = (await client.verify(answer)).on_chain
        assert checked is not None
        assert checked.contract_version == "v1"
    async with leased.client(rpc_url=None) as client:
        answer = await leased.run(client)
        assert "on_chain" not in answer
        assert (await client.verify(answer)).on_chain is None


@first_version
async def test_a_first_version_is_compared_as_far_as_it_goes(leased: LeasedNode) -> None:
    """Spender, Earner, and the Earner's own signature; it has no commitments."""
    async with leased.client() as client:
        answer = await leased.run(client)
    assert answer["results"]["output"] == "done\n"
    assert answer["on_chain"] == {"contract_version": "v0", "compared": ("spender", "earner", "signer"), "committed": None}


@first_version
async def test_a_first_version_knows_no_operator(leased: LeasedNode) -> None:
    """Nothing ties another key to the Earner; the answer comes with the refusal."""
    leased.signer = KeySigner(KEYS[4])
    async with leased.client() as client:
        with pytest.raises(UntrustedResult, match=f"{OPERATOR.address.lower()} is not the Earner .* names no operators") as caught:
            await leased.run(client)
    assert caught.value.answer is not None
    assert caught.value.answer["results"]["output"] == "done\n"


@both
async def test_a_lease_of_another_spender_is_refused(leased: LeasedNode) -> None:
    """Also where there is no such lease."""
    create = leased.agreement.create_v0 if leased.first else leased.agreement.create
    for lease_id in (await create(spender=EARNER), "0x" + "77" * 32):
        leased.lease_id = lease_id
        async with leased.client() as client:
            with pytest.raises(UntrustedResult, match="The chain contradicts the answer") as caught:
                await leased.run(client)
        assert (caught.value.code, caught.value.answer is None) == ("not-on-chain", False)


@both
async def test_an_answer_outlives_an_endpoint_that_is_down(leased: LeasedNode) -> None:
    """It is the exception's `answer`, and is kept: `result` checks it again without asking the node for it."""

    async def down(method: str, params: list[Any]) -> ProxyAnswer | None:
        return ProxyAnswer(status=503, body=b"busy")

    leased.proxy.before.append(down)
    async with leased.client() as client:
        with pytest.raises(NodeUnavailable, match=r"checks it again") as caught:
            await leased.run(client)
        error = caught.value
        assert error.answer is not None
        assert error.answer["results"]["output"] == "done\n"
        assert error.computation_id is not None
        assert error.computation_id in str(error)
        leased.node.jobs.clear()  # the node forgets it
        with pytest.raises(NodeUnavailable):
            await client.result(error.computation_id)
        leased.proxy.before.clear()
        answer = await client.result(error.computation_id)
        assert answer["results"]["output"] == "done\n"
        assert "on_chain" in answer
        assert not any("results" in request for request in leased.node.requests)
        with pytest.raises(PandaceaError, match="computation-unknown"):  # handed over once, as before
            await client.result(error.computation_id)


async def test_a_contract_of_neither_version_contradicts(leased: LeasedNode) -> None:
    """It is no LeaseAgreement."""
    await leased.agreement.chain.call_method("anvil_setCode", leased.agreement.address, "0x60006000fd")
    async with leased.client() as client:
        with pytest.raises(UntrustedResult, match="contradicts") as caught:
            await leased.run(client)
    assert caught.value.answer is not None


async def test_an_answer_that_contradicts_itself_comes_with_the_refusal(leased: LeasedNode) -> None:
    """Whoever catches it has the evidence."""

    async def forge(request: web.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        answer = await leased.answer(request, body)
        if answer is not None and "results" in answer:
            answer["results"] = answer["results"] | {"output": "forged"}
        return answer

    leased.node.hook = forge
    async with leased.client() as client:
        with pytest.raises(UntrustedResult) as caught:
            await leased.run(client)
    assert caught.value.code == "bytes-mismatch"
    assert caught.value.answer is not None
    assert caught.value.answer["results"]["output"] == "forged"
    assert SPENDER.address.lower() == caught.value.answer["manifest"]["spender"]
