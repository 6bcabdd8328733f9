"""An Earner's node that commits: a follower, an outbox with results in it, and the sender, on a clock that a test moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from pandacea.chain.confidence import Confidence, ConfidenceKind
from pandacea.chain.sending.fees import FeeLimits
from pandacea.chain.sending.finalized_leases import FollowedLeases
from pandacea.chain.sending.sender import ChainSender
from pandacea.domain.ids import Address
from pandacea.flows.following.chain_store import SentTransaction
from pandacea.flows.settlement.commit_results import CommitPorts, deliver_commitments
from pandacea.flows.unit_of_work import Channel, OutboxMessage
from pandacea.store.sent_transactions import SqlSentTransactionStore
from pandacea.store.unit_of_work import SqlDatabase
from tests.chain.anvil import EARNER, OPERATOR, AnvilAgreement, encode_call
from tests.chain.node import FollowingNode

DEPTH = 3
"""Blocks on top of a commitment after which it is final."""
FINAL = Confidence(ConfidenceKind.CONFIRMATIONS, DEPTH)


def word(text: str) -> str:
    """Return 32 bytes made of a text, in hex."""
    return "0x" + keccak(text=text).hex()


class MovedClock:
    """A clock that stands still but for what a test adds: how long a test takes decides nothing."""

    def __init__(self) -> None:
        self._start = time.time()
        self.ahead = 0.0

    def now(self) -> float:
        return self._start + self.ahead


class SettlingNode:
    """The parts of such a node, and what tests do with them; `settling_node` starts it."""

    def __init__(
        self, node: FollowingNode, account: LocalAccount, clock: MovedClock, limits: FeeLimits, keystore: Path | None
    ) -> None:
        self.node = node
        self.chain = node.agreement.chain
        self.agreement = node.agreement
        self.clock = clock
        self.account = account
        self.database = SqlDatabase(node.database)
        self.store = SqlSentTransactionStore(node.database)
        self.leases = FollowedLeases(node.follower)
        self.sender = ChainSender(
            node.endpoints,
            self.store,
            account,
            Address(node.agreement.address),
            self.leases.confident_block,
            keystore=keystore,
            limits=limits,
            now=clock.now,
        )
        self.ports = CommitPorts(self.database, self.sender, self.leases, clock)

    async def release(self, lease_id: str, *names: str) -> None:
        """Put results into the outbox, as the release of a computation does."""
        async with self.database.unit_of_work() as work:
            for name in names:
                payload = {"lease_id": lease_id, "computation_id": word(name), "result_hash": word("result of " + name)}
                await work.outbox.put_message(OutboxMessage(Channel.CHAIN, f"commit:{word(name)}", "commitResult", payload), 0.0)
            await work.commit()

    async def send_into_pool(self, name: str) -> str:
        """Make a lease and send a result of it into the pool of a chain that mines by itself no more; returns the lease's id."""
        lease_id = await self.lease()
        await self.chain.call_method("evm_setAutomine", False)
        await self.release(lease_id, name)
        await self.settle()
        return lease_id

    async def cancel_before_it(self, lease_id: str) -> None:
        """Have the Earner's cancellation of a lease mined while what was sent for it has dropped out of the pool; then look at it once."""
        raw = await self.chain.sign_transaction(EARNER, self.agreement.address, encode_call("cancelLease(bytes32)", lease_id))
        await self.chain.call_method("anvil_dropAllTransactions")
        await self.chain.call_method("eth_sendRawTransaction", raw)
        await self.chain.mine_blocks(1)
        await self.resend()

    async def settle(self) -> int:
        """Run one step of the delivery, at the chain's head."""
        await self.node.wait_for_head()
        ended = await deliver_commitments(self.ports)
        await self.let_mine()
        return ended

    async def let_mine(self) -> None:
        """Wait, where the chain mines by itself, until it has mined what it was given: it answers before it mines."""
        if not await self.chain.call_method("anvil_getAutomine"):
            return
        for _ in range(400):
            if int((await self.chain.call_method("txpool_status"))["pending"], 16) == 0:
                return
            await asyncio.sleep(0.025)
        raise AssertionError("the chain does not mine what is in its pool")

    async def settle_when_due(self) -> int:
        """Run one step when every back-off is over."""
        self.clock.ahead += 301.0
        return await self.settle()

    async def resend(self) -> int:
        """Run one look at what is not final, half a minute later."""
        self.clock.ahead += 30.0
        await self.node.wait_for_head()
        flying = await self.sender.resend_undone()
        await self.let_mine()
        return flying

    async def finish(self) -> None:
        """Mine until what is mined now is final, and run both loops once more."""
        await self.chain.mine_blocks(DEPTH + 1)
        await self.node.wait_for_head()
        await self.sender.resend_undone()
        await self.settle()

    async def notes(self) -> dict[str, str | None]:
        """Return computation -> what the outbox says of it; None: it was not tried."""
        return {row["key"]: row["result"] for row in await self._outbox()}

    async def waiting(self) -> int:
        """Count what the outbox still holds as undelivered."""
        return sum(row["done_at"] is None for row in await self._outbox())

    async def _outbox(self) -> Sequence[Any]:
        async with self.node.database.read_connection() as connection:
            return (
                (await connection.exec_driver_sql("SELECT key, result, done_at FROM outbox WHERE channel = 'chain' ORDER BY id"))
                .mappings()
                .all()
            )

    async def rows(self) -> list[SentTransaction]:
        """List every signed attempt."""
        return await self.store.list_since(self.chain.chain_id, self.sender.address, 0.0)

    async def states(self) -> list[str]:
        """List the attempts' states, by nonce and attempt."""
        return [row.state for row in await self.rows()]

    async def nonce(self) -> int:
        """Count the transactions of the sending key in the chain."""
        return int(await self.chain.call_method("eth_getTransactionCount", self.account.address, "latest"), 16)

    async def committed(self, lease_id: str, name: str) -> bool:
        """Whether the contract holds the result that was released, and no other."""
        data = encode_call("committedResult(bytes32,bytes32)", lease_id, word(name))
        found = await self.chain.call_method("eth_call", {"to": self.agreement.address, "data": data}, "latest")
        assert found in {word("result of " + name), "0x" + "00" * 32}
        return bool(found == word("result of " + name))

    async def lease(self, *, most: int = 5, days: int = 30) -> str:
        """Make a lease and approve it, deep enough that nothing here undoes it."""
        lease_id = await self.agreement.create(most=most, days=days)
        await self.agreement.approve(lease_id)
        await self.chain.mine_blocks(DEPTH + 8)
        return lease_id


def write_config(node: SettlingNode, folder: Path) -> Path:
    """Write a configuration of such a node, for the commands that read its database; return the file."""
    (folder / "data").mkdir()
    settings = {
        "blockchain": {
            "rpc_url": node.chain.url,
            "chain_id": node.chain.chain_id,
            "contract_address": node.agreement.address,
            "confidence": {"confirmations": DEPTH},
        },
        "earner": {"address": EARNER.address, "keystore": "operator.json"},
        "privacy": {"data_dir": "data"},
        "store": {"state_dir": ".", "url": f"sqlite+aiosqlite:///{folder / 'node.db'}"},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@asynccontextmanager
async def settling_node(
    agreement: AnvilAgreement,
    folder: Path,
    *,
    urls: Sequence[str] = (),
    limits: FeeLimits | None = None,
    keystore: Path | None = None,
    name_operator: bool = True,
    account: LocalAccount = OPERATOR,
    **options: Any,
) -> AsyncIterator[SettlingNode]:
    """Follow the chain, and send with `account`: by default the Earner's operator, which is named on the contract first."""
    if name_operator:
        await agreement.chain.send_transaction(EARNER, agreement.address, encode_call("setOperator(address)", OPERATOR.address))
    clock = MovedClock()
    settings: dict[str, Any] = {"confidence": FINAL, **options}
    async with FollowingNode(agreement, folder / "node.db", urls=urls, **settings) as node:
        await node.wait_for_head()
        yield SettlingNode(node, account, clock, limits or FeeLimits(), keystore)
