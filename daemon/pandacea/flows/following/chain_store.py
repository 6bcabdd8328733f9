"""The chain as the database holds it, for the follower's flows: as Protocols that `store.chain_store` implements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.chain_view import BlockRef, ChainEvent, ChainView
from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.domain.lease_record import LeaseRecord


@dataclass(frozen=True, slots=True)
class StoredProof:
    """Why an approval counts (or, unproven, why not): bound to terms, and to the approving transaction unless acknowledged."""

    status: ProofStatus
    terms_digest: str
    approved_tx: Hash32 | None
    attested_by: str
    """Who attests it (an address, two endpoints, the operator's account), or why nobody does."""


class ApprovedLease(NamedTuple):
    """One approved lease as settled, with its proof (None: it has none): the lease cache is filled from these at start.

    The values are as the database has them: an earlier version stored whatever an endpoint had sent.
    """

    lease_id: LeaseId
    spender: Address
    earner: Address
    product: Hash32 | None
    expires_at: int | None
    """Unix seconds."""
    max_computations: int
    status: str
    committed_count: int
    approved_block: int
    disputed_block: int | None
    resolved_block: int | None
    resolved_for_spender: bool | None
    approved_tx: Hash32 | None
    price: str
    """Wei, decimal."""
    proof_status: str | None
    proof_terms_digest: str | None
    proof_tx: Hash32 | None


class ChainRows(Protocol):
    """Blocks above the settled part, their events, the ranges that are to be read again, and how far the slow scan is."""

    async def save_view(self, view: ChainView) -> None: ...

    async def append_blocks(self, blocks: Sequence[BlockRef], events: Sequence[ChainEvent]) -> None: ...

    async def list_events(self, ids: Sequence[LeaseId]) -> list[ChainEvent]: ...

    async def list_events_up_to(self, last: int) -> list[ChainEvent]: ...

    async def list_leases_above(self, number: int) -> list[LeaseId]: ...

    async def delete_above(self, number: int) -> None: ...

    async def delete_settled(self, base: BlockRef) -> None: ...

    async def insert_backfill_range(self, first: int, last: int, digest: str, due_at: float = 0.0) -> None: ...

    async def find_backfill_range(self, now: float = 0.0) -> tuple[int, int, str, float] | None: ...

    async def delete_backfill_range(self, first: int) -> None: ...

    async def find_scanned_block(self) -> int: ...

    async def save_scanned_block(self, number: int) -> None: ...


class LeaseRows(Protocol):
    """Settled leases and the proofs of their approvals."""

    async def load_settled(self, ids: Sequence[LeaseId]) -> dict[LeaseId, LeaseRecord]: ...

    async def save_leases(self, leases: Mapping[LeaseId, LeaseRecord], before: Mapping[LeaseId, LeaseRecord]) -> None: ...

    async def list_contradictory(self, limit: int) -> list[LeaseId]: ...

    async def load_proofs(self, ids: Sequence[LeaseId]) -> dict[LeaseId, StoredProof]: ...

    async def save_proof(self, lease_id: LeaseId, proof: StoredProof, at: int) -> None: ...

    async def prune_waiting(self, before: int) -> int: ...


class ChainUnitOfWork(Protocol):
    """One transaction of the follower: rolled back whole unless committed."""

    @property
    def chain(self) -> ChainRows: ...

    @property
    def leases(self) -> LeaseRows: ...

    async def find_known(self, ids: Sequence[LeaseId]) -> set[LeaseId]: ...

    async def put_lease_event(self, seen: ChainEvent, now: float) -> None: ...

    def after_commit(self, callback: Callable[[], None]) -> None: ...

    async def commit(self) -> None: ...


class ChainStore(Protocol):
    """The rows of one contract on one chain."""

    chain_id: int
    contract: Address
    deploy_block: int | None
    """Where the contract begins; None before it was first followed."""

    async def open_deployment(self, earner: Address, interface: str, deploy_block: int, base: BlockRef) -> ChainView: ...

    async def find_view(self) -> ChainView | None: ...

    def unit_of_work(self) -> AbstractAsyncContextManager[ChainUnitOfWork]: ...

    def load_approved(self) -> AsyncIterator[Sequence[ApprovedLease]]: ...

    async def list_touched(self) -> list[LeaseId]: ...

    async def find_known(self, ids: Sequence[LeaseId]) -> set[LeaseId]: ...

    async def list_waiting(self) -> list[LeaseId]: ...

    async def list_payable(self) -> list[LeaseId]: ...

    async def load_rows_and_events(self, ids: Sequence[LeaseId]) -> tuple[dict[LeaseId, LeaseRecord], list[ChainEvent]]: ...

    async def load_cross_check(self, endpoint: str) -> tuple[int, dict[LeaseId, bool]] | None: ...

    async def save_cross_check(self, endpoint: str, settled_to: int, denials: Mapping[LeaseId, bool]) -> None: ...

    async def list_plain_keys(self) -> set[Address]: ...

    async def save_plain_key(self, address: Address, tx_hash: Hash32, at: int) -> None: ...


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
    paid: int | None = None
    """Wei that it cost, once it is mined; None: not mined, or by a version that did not keep it."""


class SentTransactionStore(Protocol):
    """The transactions this node signed, durable before they are sent."""

    async def list_open(self, chain_id: int, sender: Address) -> list[SentTransaction]: ...

    async def list_since(self, chain_id: int, sender: Address, at: float) -> list[SentTransaction]: ...

    async def list_from_nonce(self, chain_id: int, sender: Address, nonce: int) -> list[SentTransaction]: ...

    async def insert_attempt(self, row: SentTransaction) -> None: ...

    async def update_state(
        self, row: SentTransaction, state: str, mined_block: int | None = None, paid: int | None = None
    ) -> None: ...
