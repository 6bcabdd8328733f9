"""The embedded chain, a bare JSON-RPC client, and transactions signed by hand."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from pandacea.devchain import CHAIN_ID, DevChain
from pandacea_sdk.protocol.contract import lease_agreement


class DevChainClient:
    """A JSON-RPC client that returns whole answers."""

    def __init__(self, session: aiohttp.ClientSession, chain: DevChain) -> None:
        self._session, self.chain = session, chain
        self._ids = itertools.count(1)
        self.accounts: list[LocalAccount] = [Account.from_key(one.private_key) for one in chain.accounts]

    async def call_raw_answer(self, method: str, *params: Any) -> dict[str, Any]:
        """Call a method; return the whole answer object."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        async with self._session.post(self.chain.url, json=request) as response:
            answer: dict[str, Any] = await response.json()
        assert answer["id"] == request["id"]
        return answer

    async def call_method(self, method: str, *params: Any) -> Any:
        """Call a method that must succeed; return its result."""
        answer = await self.call_raw_answer(method, *params)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    async def post_body(self, body: bytes) -> Any:
        """Post any bytes; return the decoded answer."""
        async with self._session.post(self.chain.url, data=body) as response:
            return await response.json()

    async def sign_transaction(self, by: int = 0, *, nonce: int | None = None, **fields: Any) -> str:
        """Sign a transaction, EIP-1559 unless `gasPrice` is given; return its hex."""
        account = self.accounts[by]
        if nonce is None:
            nonce = int(await self.call_method("eth_getTransactionCount", account.address, "pending"), 16)
        whole: dict[str, Any] = {"chainId": CHAIN_ID, "nonce": nonce, "gas": 4_000_000, "value": 0, **fields}
        if "to" in whole:
            whole["to"] = to_checksum_address(whole["to"])
        if "gasPrice" not in whole:
            whole |= {"maxFeePerGas": 4 * 10**9, "maxPriorityFeePerGas": 10**9}
        return "0x" + bytes(account.sign_transaction(whole).raw_transaction).hex()

    async def send_transaction(self, by: int = 0, **fields: Any) -> dict[str, Any]:
        """Send a transaction; return its receipt."""
        receipt: dict[str, Any] = await self.call_method(
            "eth_getTransactionReceipt", await self.call_method("eth_sendRawTransaction", await self.sign_transaction(by, **fields))
        )
        return receipt

    async def deploy_agreement(self) -> str:
        """Deploy a LeaseAgreement; return its address."""
        code = lease_agreement().encode_creation(self.accounts[0].address, self.accounts[1].address)
        return str((await self.send_transaction(data=code))["contractAddress"])


@pytest.fixture
async def client() -> AsyncIterator[DevChainClient]:
    """A client of a fresh chain."""
    async with DevChain() as chain, aiohttp.ClientSession() as session:
        yield DevChainClient(session, chain)
