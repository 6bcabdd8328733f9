"""An RPC endpoint says that a contract accepts any signature, and sends requests in the name of a Spender whose key is plain.

Identity is what may_run, may_read and uploads stand on: with it go the Spender's lease, results and the Earner's rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pandacea.api.auth import Authenticator
from pandacea.api.nonces import MemoryNonces
from pandacea.api.rate_limit import RateLimiter
from pandacea.chain.spenders.accounts import AccountKind
from pandacea.chain.spenders.erc1271 import IS_VALID_SIGNATURE_SELECTOR, MAGIC_VALUE, Erc1271Verifier
from pandacea.clock import SystemClock
from pandacea.domain.ids import Address
from pandacea_sdk.client import AsyncPandaceaClient
from pandacea_sdk.protocol.hashing import KeySigner, Signer
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.signing import RequestHead, SignedRequest, SigningPolicy
from tests.chain.anvil import OWNER, SPENDER, Anvil, AnvilAgreement
from tests.chain.node import FollowingNode
from tests.faults.proxy import FaultProxy, ProxyAnswer

TARGET = "/api/v1/privacy/results/0x12"


class Forger:
    """Names the victim, signs with nothing."""

    def __init__(self, victim: str) -> None:
        self.address = victim

    def sign_digest(self, _digest: bytes) -> bytes:
        return os.urandom(65)


async def request(key: Signer) -> RequestHead:
    async with AsyncPandaceaClient("https://node.example", key=key, chain_id=31337) as client:
        headers: dict[str, Any] = await client.sign("GET", TARGET)
    return RequestHead("GET", TARGET, [("host", "node.example"), *((name.lower(), value) for name, value in headers.items())])


@asynccontextmanager
async def authenticator(node: FollowingNode, named: frozenset[Address] = frozenset()) -> AsyncIterator[Authenticator]:
    """Put together as `app.listening` does."""
    wallets = Erc1271Verifier(node.endpoints, node.lease_cache.chain_status, lambda: node.follower.spender_accounts, named)
    yield Authenticator(
        SigningPolicy(31337, frozenset({"node.example"})),
        SystemClock(),
        node.lease_cache,
        MemoryNonces(time.time, 30),
        stranger_nonces=MemoryNonces(time.time, 30),
        stranger_rate=RateLimiter(1, 1, time.monotonic),
        wallets=wallets,
    )
    await wallets.close()


def asked(*proxies: FaultProxy) -> int:
    """How often an endpoint was asked whose signature something is."""
    return sum(
        method == "eth_call" and params[0]["data"].startswith("0x" + IS_VALID_SIGNATURE_SELECTOR)
        for proxy in proxies
        for method, params in proxy.calls
    )


async def says_yes(method: str, params: list[Any]) -> ProxyAnswer | None:
    """Answer yes, which is the lie."""
    if method == "eth_call" and params[0]["data"].startswith("0x" + IS_VALID_SIGNATURE_SELECTOR):
        return ProxyAnswer(result="0x" + MAGIC_VALUE.hex())
    return None


async def leased(anvil: Anvil) -> tuple[AnvilAgreement, str]:
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    return agreement, lease


async def nothing(_: SignedRequest) -> bytes:
    """The body of a GET."""
    return b""


async def is_refused(node: FollowingNode, named: frozenset[Address] = frozenset()) -> None:
    async with authenticator(node, named) as verifies:
        own = await verifies.authenticate(await request(KeySigner(bytes(SPENDER.key))), nothing)
        assert own.address == SPENDER.address.lower()
        with pytest.raises(ProtocolError) as caught:
            await verifies.authenticate(await request(Forger(SPENDER.address)), nothing)
        assert caught.value.code == "signature-invalid"


@pytest.mark.parametrize("keys", [("",), ("?key=one", "?key=two")])
async def test_one_provider_signs_for_nobody(anvil: Anvil, tmp_path: Path, keys: tuple[str, ...]) -> None:
    """With one URL, and with two of one provider: it is not even asked."""
    agreement, lease = await leased(anvil)
    async with FaultProxy(anvil.url) as liar:
        liar.before.append(says_yes)
        urls = [liar.url + key for key in keys]
        async with FollowingNode(agreement, tmp_path / "node.db", urls=urls, operators=[None] * len(urls)) as node:
            await node.wait_for_proof(lease)
            await is_refused(node)
            assert asked(liar) == 0


async def test_two_providers_that_lie_together_sign_for_no_plain_key(anvil: Anvil, tmp_path: Path) -> None:
    """The Spender's own signature created the lease: a plain key for ever, named as a wallet by mistake or not, after a restart, too."""
    agreement, lease = await leased(anvil)
    spender = Address(SPENDER.address.lower())
    async with FaultProxy(anvil.url) as one, FaultProxy(anvil.url) as two:
        one.before.append(says_yes)
        two.before.append(says_yes)
        for restart in (False, True):
            if restart:  # and now they hide what proved it
                hide = lambda method, _params, result: None if method == "eth_getTransactionByHash" else result  # noqa: E731
                one.after.append(hide)
                two.after.append(hide)
            async with FollowingNode(agreement, tmp_path / "node.db", urls=[one.url, two.url]) as node:
                await node.wait_for_proof(lease)

                def known(node: FollowingNode = node) -> bool:
                    keys = node.follower.spender_accounts
                    return keys is not None and keys.kind_of(spender) is AccountKind.EOA

                await node.wait_until(known, what="the Spender's key was looked at")
                await node.wait_until(lambda node=node: all(one.verified for one in node.endpoints.members))  # type: ignore[misc]
                await is_refused(node)
                await is_refused(node, frozenset({spender}))
        assert asked(one, two) == 0


async def test_one_that_tells_the_truth_is_enough(anvil: Anvil, tmp_path: Path) -> None:
    """The followed endpoint shows the creation in another transaction, so a plain key looks like a wallet: the other shows the key."""
    agreement, lease = await leased(anvil)
    other = await anvil.send_transaction(OWNER, OWNER.address, "0x")
    spender = Address(SPENDER.address.lower())

    def elsewhere(method: str, _params: list[Any], result: Any) -> Any:
        if method != "eth_getLogs":
            return result
        return [one | {"transactionHash": other["transactionHash"]} if len(one["topics"]) == 4 else one for one in result]

    async with FaultProxy(anvil.url) as liar, FaultProxy(anvil.url) as honest:
        liar.before.append(says_yes)
        liar.after.append(elsewhere)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[liar.url, honest.url]) as node:
            await node.wait_for_proof(lease)

            def known() -> bool:
                keys = node.follower.spender_accounts
                return keys is not None and keys.kind_of(spender) is AccountKind.EOA

            await node.wait_until(known, what="the other endpoint was asked, too")
            await is_refused(node)
