"""A chain in memory behind the Endpoint interface, for hundreds of histories with every block, fork and answer under control."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from eth_utils.crypto import keccak

from pandacea.chain.events import decode_event
from pandacea.chain.logs import bloom_bits
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import RpcLog
from pandacea.domain.chain_view import ChainEvent
from pandacea.domain.ids import Address, BlockNumber, Hash32, LeaseKey
from pandacea.domain.lease import LeaseApproved
from pandacea.domain.lease_record import FACT_FIELDS, STATUS_CODE, LeaseRecord
from tests.chain.emitter import TOPIC
from tests.lease_fold import apply_event

CONTRACT = Address("0x" + "c0" * 20)


@dataclass(frozen=True)
class SimulatedBlock:
    """One block: its logs are (topics, data)."""

    number: int
    hash: str
    parent: SimulatedBlock | None
    logs: tuple[tuple[tuple[str, ...], str], ...] = ()
    transactions: tuple[str, ...] = ()

    def json_logs(self) -> list[dict[str, Any]]:
        return [
            {
                "address": CONTRACT,
                "topics": list(topics),
                "data": data,
                "blockNumber": hex(self.number),
                "blockHash": self.hash,
                "transactionHash": self.transactions[place],
                "logIndex": hex(place),
            }
            for place, (topics, data) in enumerate(self.logs)
        ]

    def header(self) -> dict[str, Any]:
        bloom = 0
        for topics, _ in self.logs:
            bloom |= bloom_bits(CONTRACT)
            for one in topics:
                bloom |= bloom_bits(one)
        return {
            "number": hex(self.number),
            "hash": self.hash,
            "parentHash": self.parent.hash if self.parent else "0x" + "0" * 64,
            "timestamp": hex(1_700_000_000 + self.number),
            "logsBloom": f"0x{bloom:0512x}",
        }

    def branch(self) -> list[SimulatedBlock]:
        """List the blocks from genesis to this one."""
        found: list[SimulatedBlock] = []
        block: SimulatedBlock | None = self
        while block is not None:
            found.append(block)
            block = block.parent
        return found[::-1]


@dataclass
class SimulatedChain:
    """The canonical branch, and every block there ever was, by hash."""

    finality: int
    blocks: list[SimulatedBlock] = field(default_factory=list)
    ever: dict[str, SimulatedBlock] = field(default_factory=dict)
    final: int = -1
    _salt: int = 0

    def __post_init__(self) -> None:
        self.mine([])

    @property
    def head(self) -> SimulatedBlock:
        return self.blocks[-1]

    def mine(self, logs: list[tuple[tuple[str, ...], str]]) -> SimulatedBlock:
        """Append one block with these logs."""
        self._salt += 1
        number = len(self.blocks)
        block = SimulatedBlock(
            number,
            "0x" + keccak(f"block {self._salt}".encode()).hex(),
            self.blocks[-1] if self.blocks else None,
            tuple(logs),
            tuple("0x" + keccak(f"tx {self._salt} {place}".encode()).hex() for place in range(len(logs))),
        )
        self.blocks.append(block)
        self.ever[block.hash] = block
        self.final = max(self.final, number - self.finality)
        return block

    def drop_blocks(self, depth: int) -> None:
        """Remove the last blocks, but never a final one."""
        depth = min(depth, self.head.number - max(self.final, 0))
        if depth > 0:
            del self.blocks[-depth:]


class SimulatedEndpoint(Endpoint):
    """Answers from the chain, sometimes from a state some blocks ago, sometimes with a fault."""

    def __init__(self, chain: SimulatedChain, rng: random.Random, *, fault_rate: float = 0.0) -> None:
        super().__init__("http://simulated:1/")
        self.chain = chain
        self.rng = rng
        self.fault_rate = fault_rate
        self.behind = 0

    async def call_nullable(self, method: str, params: Sequence[Any], shape: type[Any]) -> Any:
        self.calls += 1
        if self.rng.random() < self.fault_rate:
            raise RpcFault(
                self.rng.choice([FaultKind.NETWORK, FaultKind.RANGE, FaultKind.RATE_LIMIT]), self.name, method, "simulated"
            )
        answer = self._answer(method, list(params))
        return None if answer is None else msgspec.convert(answer, shape)

    def _answer(self, method: str, params: list[Any]) -> Any:
        blocks = self.chain.blocks[: max(1, len(self.chain.blocks) - self.behind)]
        if method == "eth_getBlockByNumber":
            tags = {"latest": blocks[-1].number, "finalized": self.chain.final, "safe": self.chain.final + self.chain.finality // 2}
            number = tags[params[0]] if params[0] in tags else int(params[0], 16)
            return blocks[number].header() if 0 <= number < len(blocks) else None
        assert method == "eth_getLogs", method
        where = params[0]
        if "blockHash" in where:
            asked = [block for block in blocks if block.hash == where["blockHash"]]
            if not asked:
                raise RpcFault(FaultKind.ERROR, self.name, method, "unknown block")
        else:
            asked = blocks[int(where["fromBlock"], 16) : int(where["toBlock"], 16) + 1]
        return [log for block in asked for log in block.json_logs()]


def events_of(branch: list[SimulatedBlock], earner_topic: str) -> list[ChainEvent]:
    """List what a node must have seen of a branch: every event in order, other Earners' creations left out."""
    events = []
    for block in branch:
        for place, raw in enumerate(block.json_logs()):
            log = msgspec.convert(raw, RpcLog)
            if log.topics[0] == TOPIC["LeaseCreated"] and log.topics[3] != earner_topic:
                continue
            event = decode_event(log.topics, log.data)
            if event is not None:
                events.append(ChainEvent(BlockNumber(block.number), Hash32(block.hash), place, log.transaction_hash, event))
    return events


def fold(held: LeaseRecord | None, seen: ChainEvent, key: LeaseKey, at: int) -> LeaseRecord | None:
    """Fold one event by the law itself (`domain.lease.apply`), slowly; None: of a lease whose creation was not seen."""
    lease = apply_event(None if held is None else held.lease, seen.event, key, seen.block)
    if lease is None:
        return None
    after = LeaseRecord(
        key, lease.spender, lease.earner, lease.price, lease.created_block, seen_at=at if held is None else held.seen_at
    )
    after.status = STATUS_CODE[lease.status]
    after.terms = (lease.data_product_id, lease.expires_at, lease.max_computations)
    after.committed = lease.committed
    after.fact_blocks = [getattr(lease, fact) for fact in FACT_FIELDS]
    after.resolved_for_spender = lease.resolved_for_spender
    first = type(seen.event) is LeaseApproved and (held is None or held.approved_tx is None)
    after.approved_tx = seen.transaction if first else None if held is None else held.approved_tx
    return after
