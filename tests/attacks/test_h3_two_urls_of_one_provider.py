"""A provider with two URLs invents an approved lease, and is its own second opinion.

It makes up LeaseCreated, LeaseTerms and LeaseApproved; the approving transaction proves nothing, so two endpoints must agree.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.endpoint_operator import LOCAL_NETWORK, operator_of
from pandacea_sdk.protocol.contract import lease_agreement
from tests.chain.anvil import EARNER, STRANGER, Anvil, encode_call
from tests.chain.emitter import Emitter, created, lease_number, simple, terms
from tests.chain.node import FollowingNode
from tests.faults.proxy import FaultProxy

LEASE = lease_number(1)


async def invented(anvil: Anvil) -> Emitter:
    """A chain that is the liar's, down to the contract: 1,000 computations for the liar, approved by nobody."""
    liar = await Emitter.deploy(anvil)
    await liar.emit(created(LEASE, spender=STRANGER.address), terms(LEASE, most=1000), simple("LeaseApproved", LEASE))
    await anvil.mine_blocks(4)
    return liar


async def looked_at(node: FollowingNode) -> ProofStatus:
    """What the node makes of the lease."""
    await node.wait_until(lambda: all(one.verified for one in node.endpoints.members), what="both were asked")
    await node.wait_until(
        lambda: (known := node.known_lease(LEASE)) is not None and known.proof_status is not ProofStatus.PENDING, what="looked at"
    )
    known = node.known_lease(LEASE)
    assert known is not None
    return known.proof_status


async def test_two_keys_at_one_host_do_not_agree(anvil: Anvil, tmp_path: Path) -> None:
    """As it was played: http://host/?key=one and ?key=two."""
    liar = await invented(anvil)
    async with FaultProxy(anvil.url) as proxy:
        urls = [proxy.url + "?key=one", proxy.url + "?key=two"]
        async with FollowingNode(liar.agreement, tmp_path / "node.db", urls=urls, operators=[None, None]) as node:
            assert await looked_at(node) is ProofStatus.UNPROVEN


async def test_two_names_of_one_provider_do_not_agree(anvil: Anvil, tmp_path: Path) -> None:
    """Two hosts that one operator is stated to run."""
    liar = await invented(anvil)
    async with FaultProxy(anvil.url) as one, FaultProxy(anvil.url) as two:
        urls = [one.url, two.url]
        async with FollowingNode(liar.agreement, tmp_path / "node.db", urls=urls, operators=["Provider", "provider "]) as node:
            assert await looked_at(node) is ProofStatus.UNPROVEN


async def test_two_operators_cannot_agree_on_an_id_that_is_not_its_terms(anvil: Anvil, tmp_path: Path) -> None:
    """Under the v1 interface an id is the hash of the terms: no two words replace that."""
    liar = await invented(anvil)
    async with FaultProxy(anvil.url) as one, FaultProxy(anvil.url) as two:
        async with FollowingNode(liar.agreement, tmp_path / "node.db", urls=[one.url, two.url]) as node:
            assert await looked_at(node) is ProofStatus.UNPROVEN


@pytest.mark.parametrize("independent", [True, False])
async def test_two_operators_agree_on_what_is_there(anvil: Anvil, tmp_path: Path, independent: bool) -> None:
    """The control: a lease approved through a relay counts where endpoints of two operators show it, and the ran transaction."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    # Code that passes its call data on to the LeaseAgreement, and the eleven bytes that deploy it.
    runtime = "366000600037600060003660006000" + "73" + agreement.address[2:] + "5af100"
    relay = (await anvil.send_transaction(EARNER, None, f"0x60{len(runtime) // 2:02x}80600b6000396000f3{runtime}"))[
        "contractAddress"
    ]
    await anvil.send_transaction(EARNER, agreement.address, encode_call("setOperator(address)", relay))
    await anvil.send_transaction(STRANGER, relay, "0x" + lease_agreement().encode_call("approveLease", lease).hex())
    who = (None, None) if not independent else ("one", "two")
    async with FaultProxy(anvil.url) as one, FaultProxy(anvil.url) as two:
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[one.url, two.url], operators=who) as node:
            wanted = ProofStatus.AGREED if independent else ProofStatus.UNPROVEN
            await node.wait_until(lambda: all(each.verified for each in node.endpoints.members))
            await node.wait_until(
                lambda: (known := node.known_lease(lease)) is not None and known.proof_status is wanted, what=wanted.value
            )


@pytest.mark.parametrize(
    ("url", "operator"),
    [
        ("https://eth-mainnet.g.alchemy.com/v2/key", "alchemy.com"),
        ("https://ALCHEMY.com./v2/other", "alchemy.com"),
        ("https://rpc.example.co.uk/", "co.uk"),
        ("http://127.0.0.1:8545", LOCAL_NETWORK),
        ("http://[::1]:8545", LOCAL_NETWORK),
        ("http://192.168.7.2:8545", LOCAL_NETWORK),
        ("https://203.0.113.7/", LOCAL_NETWORK),
        ("http://127.1:8545", LOCAL_NETWORK),
        ("http://geth:8545", LOCAL_NETWORK),
        ("http://geth.local:8545", LOCAL_NETWORK),
    ],
)
def test_who_runs_an_endpoint_unless_it_is_stated(url: str, operator: str) -> None:
    """Never one operator for two: whoever owns a registered domain is one, and so is whatever has none."""
    assert operator_of(url) == operator
    assert operator_of(url, " My Node ") == "my node"
