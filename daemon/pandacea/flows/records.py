"""The chain as the database holds it: what the follower's journey needs from the store, as Protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.domain.seen import BlockRef, Held, SeenEvent, View
from pandacea.domain.trust import Trust


@dataclass(frozen=True, slots=True)
class KeptProof:
    """Why an approval counts (or, unproven, why not): bound to terms, and to the approving transaction unless acknowledged."""

    trust: Trust
    terms: str
    approved_tx: Hash32 | None
    by: str
    """Who vouches (an address, two endpoints, the operator's account), or why nobody does."""


ApprovedRow = Sequence[Any]
"""Columns as `store.leases.APPROVED` names them: a plain row, for a hundred thousand are read at start."""


class ChainTransaction(Protocol):
    """One transaction of the follower: undone whole unless committed."""

    async def known(self, ids: Sequence[LeaseId]) -> set[LeaseId]: ...

    async def leases_above(self, number: int) -> list[LeaseId]: ...

    async def undo(self, number: int) -> None: ...

    async def append(self, blocks: Sequence[BlockRef], events: Sequence[SeenEvent]) -> None: ...

    async def events_of(self, ids: Sequence[LeaseId]) -> list[SeenEvent]: ...

    async def events_to(self, last: int) -> list[SeenEvent]: ...

    async def settled(self, ids: Sequence[LeaseId]) -> dict[LeaseId, Held]: ...

    async def save(self, held: Mapping[LeaseId, Held], before: Mapping[LeaseId, Held]) -> None: ...

    async def settle(self, base: BlockRef) -> None: ...

    async def save_cursor(self, view: View) -> None: ...

    async def proofs(self, ids: Sequence[LeaseId]) -> dict[LeaseId, KeptProof]: ...

    async def save_proof(self, lease_id: LeaseId, proof: KeptProof, at: int) -> None: ...

    async def insert_range(self, first: int, last: int, digest: str) -> None: ...

    async def oldest_range(self) -> tuple[int, int, str] | None: ...

    async def delete_range(self, first: int) -> None: ...

    async def prune(self, before: int) -> int: ...

    async def tell(self, seen: SeenEvent, topic: str, payload: dict[str, Any], now: float) -> None: ...

    @property
    def after_commit(self) -> Callable[[Callable[[], None]], None]: ...

    @property
    def commit(self) -> Callable[[], Any]: ...


class ChainRecords(Protocol):
    """The rows of one contract on one chain."""

    chain_id: int
    contract: Address
    deploy_block: int | None
    """Where the contract begins; None before it was first followed."""

    async def begin(self, earner: Address, interface: str, deploy_block: int, base: BlockRef) -> View: ...

    async def resume(self) -> View | None: ...

    async def forget(self, earner: Address, interface: str, base: BlockRef) -> None: ...

    def write(self) -> AbstractAsyncContextManager[ChainTransaction]: ...

    def approved(self) -> AsyncIterator[Sequence[ApprovedRow]]: ...

    async def touched(self) -> list[LeaseId]: ...

    async def known(self, ids: Sequence[LeaseId]) -> set[LeaseId]: ...

    async def plain_keys(self) -> set[Address]: ...

    async def keep_plain_key(self, address: Address, tx_hash: Hash32, at: int) -> None: ...


@dataclass(frozen=True, slots=True)
class SentTransaction:
    """One signed attempt; amounts in wei, `at` in Unix seconds."""

    chain_id: int
    sender: Address
    nonce: int
    attempt: int
    purpose: str
    tx_hash: Hash32
    raw: str
    max_cost: int
    max_fee: int
    priority_fee: int
    at: float
    state: str
    """`signed`, `mined`, `final` or `lost`."""
    mined_block: int | None = None


class SentRecords(Protocol):
    """The transactions this node signed, durable before they are sent."""

    async def of(self, chain_id: int, sender: Address, purpose: str) -> list[SentTransaction]: ...

    async def open(self, chain_id: int, sender: Address) -> list[SentTransaction]: ...

    async def since(self, chain_id: int, sender: Address, at: float) -> list[SentTransaction]: ...

    async def add(self, row: SentTransaction) -> None: ...

    async def mark(self, row: SentTransaction, state: str, mined_block: int | None = None) -> None: ...
