"""What the journeys need from the world, as Protocols. Adapters implement them; `tests/fakes.py` fakes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pandacea.domain.access import ChainStanding, KnownLease, Trust
from pandacea.domain.ids import Address, AssetId, ComputationId, Hash32, LeaseId
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Outcome
from pandacea.domain.seen import BlockRef, Held, SeenEvent, View


class Clock(Protocol):
    """Time comes in as an argument."""

    def now(self) -> float:
        """Unix seconds."""
        ...


class TableFormat(StrEnum):
    """How the bytes behind a descriptor are to be read as a table."""

    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class InputTable:
    """One asset of one computation: the node opens `path` read-only and hands over the descriptor, never the folder."""

    asset_id: AssetId
    variable_name: str
    path: Path
    format: TableFormat


@dataclass(frozen=True, slots=True)
class SandboxJob:
    """Everything one sandbox is given. `results` is an empty node-private folder where artifacts are written, as 0, 1, 2 ..."""

    computation_id: ComputationId
    code: bytes
    params: bytes
    """JSON text: becomes the script's `params`."""
    inputs: tuple[InputTable, ...]
    uploads: Mapping[str, Path]
    limits: Limits
    seed: int
    threads: int
    results: Path


@dataclass(frozen=True, slots=True)
class SandboxIdentity:
    """What a computation ran in, as the manifest states it."""

    kind: str
    """`docker` or `bubblewrap`."""
    environment: str
    """Docker image id (`sha256:...`), or `sha256:` + digest of the environment's lock."""
    guest: str
    """sha-256 hex of the guest program."""


@dataclass(frozen=True, slots=True)
class OutputWritten:
    """The script wrote these bytes; hostile until passed through `printable`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Progressed:
    """The script called `pandacea_progress(done, total)`."""

    done: float
    total: float


@dataclass(frozen=True, slots=True)
class CodeStarted:
    """The guest acknowledged the first byte of the script: the run is charged from here on."""


SandboxEvent = CodeStarted | OutputWritten | Progressed


class Sandbox(Protocol):
    """A box made for one computation and destroyed afterwards."""

    async def open(self) -> SandboxIdentity:
        """Check that the box can be made here (engine, image, self-test), sweep leftovers, start the pool.

        Raises:
            Broken: the box cannot be made or a limit does not bite; the message says which and what to do.
        """
        ...

    async def run(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        """Run one job to its end. Never raises for what a script does; cancelling the task destroys the box and re-raises.

        Raises:
            Unavailable: engine or host failed before any user code ran; the job may be tried again.
        """
        ...

    async def close(self) -> None:
        """Destroy every box this node made."""
        ...


class PrivacyService(Protocol):
    """The service of the specification: run a Spender's code on leased data, and say whether a lease allows it."""

    async def execute_computation(self, computation_id: ComputationId) -> Outcome:
        """Run an accepted computation to its end."""
        ...

    async def verify_lease(self, lease_id: str, spender: str, asset_ids: list[str]) -> Any:
        """Say whether this caller may run on these assets now."""
        ...


class LeaseBook(Protocol):
    """What the node believes about leases, answered from memory in O(1)."""

    def lease(self, lease_id: LeaseId) -> KnownLease | None:
        """A lease that was approved, as of the last block processed; None: not known, or not approved yet."""
        ...

    def standing(self) -> ChainStanding:
        """How far the chain was read, and whether that may be believed now."""
        ...

    def knows_spender(self, address: Address) -> bool:
        """Whether some approved lease is this address's."""
        ...

    def on_change(self, callback: Callable[[frozenset[LeaseId]], None]) -> None:
        """Call back with the leases whose answer changed, after the change is durable. Callbacks must not block or raise."""
        ...


@dataclass(frozen=True, slots=True)
class KeptProof:
    """Why an approval counts (or, unproven, why not): bound to terms, and to the approving transaction unless acknowledged."""

    trust: Trust
    terms: str
    approved_tx: Hash32 | None


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

    async def save_proof(self, lease_id: LeaseId, proof: KeptProof, by: str, at: int) -> None: ...

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

    async def begin(self, earner: Address, interface: str, deploy_block: int, base: BlockRef) -> View: ...

    async def resume(self) -> View | None: ...

    async def forget(self, earner: Address, interface: str, base: BlockRef) -> None: ...

    def write(self) -> AbstractAsyncContextManager[ChainTransaction]: ...

    def approved(self) -> AsyncIterator[Sequence[ApprovedRow]]: ...

    async def touched(self) -> list[LeaseId]: ...

    async def known(self, ids: Sequence[LeaseId]) -> set[LeaseId]: ...
