"""A real anvil for tests, and the hand of Spender and Earner on it: transactions signed here, sent raw."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import aiohttp
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from pandacea.domain.ids import Hash32
from pandacea_sdk.protocol.approval import sign_approval
from pandacea_sdk.protocol.hashing import KeySigner

ROOT: Final = Path(__file__).parents[2]
ANVIL: Final = ROOT / "tests/npm/node_modules/.bin/anvil"
V1: Final = json.loads((ROOT / "daemon/pandacea_sdk/protocol/abi/LeaseAgreement.json").read_text())
V0: Final = json.loads((ROOT / "contracts/test/artifacts/LeaseAgreementV0.json").read_text())

# anvil's well-known development keys: public, worth nothing anywhere else.
KEYS: Final = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
)
OWNER, EARNER, SPENDER, STRANGER, OPERATOR = (Account.from_key(key) for key in KEYS)
PRODUCT: Final = Hash32("0x" + keccak(text="diabetes").hex())


class AnvilError(Exception):
    """Anvil answered with an error."""


class Anvil:
    """One anvil process on a free loopback port."""

    def __init__(self, *options: str) -> None:
        """`options`: as on anvil's command line; by default `safe` is the head - 1 and `finalized` the head - 2."""
        if not any(option == "--slots-in-an-epoch" for option in options):
            options = ("--slots-in-an-epoch", "1", *options)
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._session: aiohttp.ClientSession | None = None
        self.url = ""
        self.chain_id = 31337

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Anvil]:
        """Use a chain that another process runs: nothing is started, and nothing is killed at the end."""
        chain = cls()
        chain.url = url
        async with aiohttp.ClientSession() as chain._session:
            yield chain

    async def __aenter__(self) -> Anvil:
        arguments = [str(ANVIL), "--port", "0", *self._options]
        self._process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        port = await asyncio.to_thread(self._port)
        self.url = f"http://127.0.0.1:{port}"
        self._session = aiohttp.ClientSession()
        self._drain = asyncio.create_task(asyncio.to_thread(self._read_on))
        return self

    def _port(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if match := re.search(r"Listening on 127\.0\.0\.1:(\d+)", line):
                return int(match[1])
        raise RuntimeError("anvil did not start: " + "".join(said[-5:]))

    def _read_on(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for _ in self._process.stdout:
            pass

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await self.kill()
        if self._session is not None:
            await self._session.close()

    async def kill(self) -> None:
        """Kill the process, as a crash would."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.to_thread(self._process.wait)
            await self._drain

    def freeze(self) -> None:
        """Accept connections and answer nothing, until `thaw`."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue a frozen process."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    @property
    def ws_url(self) -> str:
        """The URL of its WebSocket."""
        return self.url.replace("http", "ws", 1)

    async def call_method(self, method: str, *params: Any) -> Any:
        """Call a JSON-RPC method; return its result."""
        assert self._session is not None
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        async with self._session.post(self.url, json=body) as answer:
            said = await answer.json()
        if "error" in said:
            raise AnvilError(said["error"])
        return said["result"]

    async def mine_blocks(self, blocks: int = 1) -> None:
        """Mine some empty blocks."""
        await self.call_method("anvil_mine", hex(blocks))

    async def head_number(self) -> int:
        """Return the newest block's number."""
        return int(await self.call_method("eth_blockNumber"), 16)

    async def reorg(self, depth: int, transactions: Sequence[tuple[str, int]] = ()) -> None:
        """Replace the last `depth` blocks; raw transactions go into the new ones, each with the index of its block."""
        await self.call_method("anvil_reorg", depth, [[raw, place] for raw, place in transactions])

    async def sign_transaction(
        self,
        account: LocalAccount,
        to: str | None,
        data: str,
        *,
        value: int = 0,
        nonce: int | None = None,
        kind: int = 2,
        gas: int = 500_000,
    ) -> str:
        """Sign a transaction; return its raw hex."""
        if nonce is None:
            nonce = int(await self.call_method("eth_getTransactionCount", account.address, "pending"), 16)
        fields: dict[str, Any] = {
            "chainId": self.chain_id,
            "nonce": nonce,
            "gas": 8_000_000 if to is None else gas,
            "value": value,
            "data": data,
        }
        if to is not None:
            fields["to"] = to_checksum(to)
        if kind == 2:
            fields |= {"maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9, "type": 2}
        else:
            fields |= {"gasPrice": 10**11} | ({"type": 1, "accessList": []} if kind == 1 else {})
        return "0x" + account.sign_transaction(fields).raw_transaction.hex().removeprefix("0x")

    async def send_transaction(
        self, account: LocalAccount, to: str | None, data: str, *, value: int = 0, kind: int = 2
    ) -> dict[str, Any]:
        """Sign, send, and wait for the receipt (anvil mines at once unless told otherwise)."""
        tx_hash = await self.call_method(
            "eth_sendRawTransaction", await self.sign_transaction(account, to, data, value=value, kind=kind)
        )
        return await self.wait_for_receipt(tx_hash)

    async def wait_for_receipt(self, tx_hash: str) -> dict[str, Any]:
        """Wait for a receipt."""
        for _ in range(400):
            found: dict[str, Any] | None = await self.call_method("eth_getTransactionReceipt", tx_hash)
            if found is not None:
                assert found["status"] == "0x1", f"reverted: {found}"
                return found
            await asyncio.sleep(0.025)
        raise AssertionError(f"{tx_hash} was not mined")

    async def deploy_agreement(self, artifact: dict[str, Any] = V1) -> AnvilAgreement:
        """Deploy a LeaseAgreement from its artifact."""
        code = artifact["bytecode"]
        if artifact is V1:
            code += abi_word(OWNER.address) + abi_word(OWNER.address)
        receipt = await self.send_transaction(OWNER, None, code)
        return AnvilAgreement(self, receipt["contractAddress"].lower(), int(receipt["blockNumber"], 16))


class AnvilAgreement:
    """A LeaseAgreement and the calls the tests make."""

    def __init__(self, chain: Anvil, address: str, block: int) -> None:
        """`block`: of its deployment."""
        self.chain = chain
        self.address = address
        self.block = block

    async def code_hash(self) -> Hash32:
        """Return keccak256 of the contract's code."""
        code = await self.chain.call_method("eth_getCode", self.address, "latest")
        return Hash32("0x" + keccak(hexstr=code).hex())

    async def create(
        self,
        *,
        spender: LocalAccount = SPENDER,
        earner: str = EARNER.address,
        product: str = PRODUCT,
        price: int = 1000,
        days: int = 30,
        most: int = 3,
    ) -> str:
        """Create a v1 lease; return its id."""
        now = int((await self.chain.call_method("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
        data = encode_call("createLease(address,bytes32,uint256,uint64,uint32)", earner, product, price, now + days * 86400, most)
        receipt = await self.chain.send_transaction(spender, self.address, data, value=price)
        return str(receipt["logs"][0]["topics"][1])

    async def create_v0(self, *, spender: LocalAccount = SPENDER, earner: str = EARNER.address, product: str = PRODUCT) -> str:
        """Create a v0 lease; return its id."""
        data = encode_call("createLease(address,bytes32,uint256)", earner, product, 1000)
        receipt = await self.chain.send_transaction(spender, self.address, data, value=1000)
        return str(receipt["logs"][0]["topics"][1])

    async def approve(self, lease_id: str, *, by: LocalAccount = EARNER, kind: int = 2) -> dict[str, Any]:
        """Approve a lease; return the receipt."""
        return await self.chain.send_transaction(by, self.address, encode_call("approveLease(bytes32)", lease_id), kind=kind)

    async def approve_by_signature(
        self, lease_id: str, *, signer: LocalAccount = EARNER, by: LocalAccount = STRANGER, kind: int = 2
    ) -> dict[str, Any]:
        """Bring an approval that somebody signed."""
        approval = sign_approval(KeySigner(signer.key), 31337, self.address, lease_id)
        return await self.chain.send_transaction(by, self.address, "0x" + approval.encode_call().hex(), kind=kind)

    async def commit(self, lease_id: str, computation: str, result: str = "0x" + "11" * 32) -> dict[str, Any]:
        """Commit a result; return the receipt."""
        data = encode_call("commitResult(bytes32,bytes32,bytes32)", lease_id, computation, result)
        return await self.chain.send_transaction(EARNER, self.address, data)

    async def cancel(self, lease_id: str, *, by: LocalAccount = EARNER) -> dict[str, Any]:
        """Cancel a lease; return the receipt."""
        return await self.chain.send_transaction(by, self.address, encode_call("cancelLease(bytes32)", lease_id))

    async def execute(self, lease_id: str, *, by: LocalAccount = EARNER) -> dict[str, Any]:
        """Execute a lease; return the receipt."""
        return await self.chain.send_transaction(by, self.address, encode_call("executeLease(bytes32)", lease_id))

    async def credit_of(self, address: str) -> int:
        """Return what the contract owes an account, in wei."""
        call = {"to": self.address, "data": encode_call("creditOf(address)", address)}
        return int(await self.chain.call_method("eth_call", call, "latest"), 16)


def abi_word(value: str | int) -> str:
    """Encode an ABI word of 64 hex digits."""
    return f"{value:064x}" if isinstance(value, int) else value.lower().removeprefix("0x").rjust(64, "0")


def encode_call(signature: str, *arguments: str | int) -> str:
    """Encode the calldata of a function whose arguments are words."""
    return "0x" + keccak(text=signature)[:4].hex() + "".join(map(abi_word, arguments))


def to_checksum(address: str) -> str:
    """Convert to the EIP-55 form, which eth-account requires."""
    from eth_utils.address import to_checksum_address

    return to_checksum_address(address)
