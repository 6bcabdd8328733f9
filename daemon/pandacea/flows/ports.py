"""What the journeys need from the world, as Protocols. Adapters implement them; `tests/fakes.py` fakes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pandacea.domain.access import AccessDecision, CachedLease, ChainStatus
from pandacea.domain.ids import Address, AssetId, ComputationId, Hash32, LeaseId
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Outcome
from pandacea.domain.product import Product


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
    commitment: str | None = None
    """What the Earner committed to of these rows, hex; None: mock rows, which nobody signs for."""


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
    results_dir: Path
    capture_stderr: bool = True
    """Whether what goes to stderr is part of the output; False: it goes nowhere."""


@dataclass(frozen=True, slots=True)
class SandboxIdentity:
    """What a computation ran in, as the manifest states it."""

    kind: str
    """`docker` or `bubblewrap`."""
    environment: str
    """Docker image id (`sha256:...`), or `sha256:` + digest of the environment's lock."""
    guest: str
    """sha-256 hex of the guest program."""
    packages: tuple[str, ...] = ()
    """`name==version` lines, sorted: what a script may import. Published, not in the manifest: `environment` names them."""


@dataclass(frozen=True, slots=True)
class OutputWritten:
    """The script wrote these bytes; hostile until passed through `printable`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ProgressReported:
    """The script called `pandacea_progress(done, total)`."""

    done: float
    total: float


@dataclass(frozen=True, slots=True)
class CodeStarted:
    """The guest acknowledged the first byte of the script: the run is charged from here on."""


SandboxEvent = CodeStarted | OutputWritten | ProgressReported


class Sandbox(Protocol):
    """A box made for one computation and destroyed afterwards."""

    async def start(self) -> SandboxIdentity:
        """Check that the box can be made here (engine, image, self-test), sweep leftovers, start the pool.

        Raises:
            Broken: the box cannot be made or a limit does not bite; the message says which and what to do.
        """
        ...

    async def run_job(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        """Run one job to its end. Never raises for what a script does; cancelling the task destroys the box and re-raises.

        Raises:
            Unavailable: engine or host failed before any user code ran; the job may be tried again.
        """
        ...

    async def stop(self) -> None:
        """Destroy every box this node made."""
        ...


class LeaseCache(Protocol):
    """The leases as the follower keeps them: from memory, O(1), exact at every moment."""

    def find_lease(self, lease_id: LeaseId) -> CachedLease | None: ...

    def chain_status(self) -> ChainStatus: ...

    def knows_spender(self, address: Address) -> bool:
        """Whether this address is the spender of an approved lease of this Earner."""
        ...

    def subscribe(self, callback: Callable[[LeaseId | None], None]) -> Callable[[], None]:
        """Call back after a lease changed (None: any of them may have, or the standing did). Returns how to stop it."""
        ...


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """May this caller start a new computation under this lease, on these assets, now?"""

    lease_id: LeaseId
    caller: Address
    assets: tuple[AssetId, ...]
    product_version: str | None
    """The version the request names; None: whatever is current."""
    used: int
    reserved: int
    time_limit: float
    """Seconds the run may take."""


class PrivacyService(Protocol):
    """The service of the specification: say whether a lease allows a computation, and run it in a box of its own."""

    def verify_lease(self, request: AccessRequest) -> AccessDecision:
        """Say whether this caller may start a new computation on these assets now. From memory, at once."""
        ...

    async def execute_computation(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        """Run an accepted computation to its end, as `Sandbox.run`."""
        ...


class CodeChecker(Protocol):
    """The early, clear error about a script. Never the boundary: the box is."""

    async def check_code(self, code: str, owner: str = "") -> None:
        """Look at a script before it is queued. `owner`: who sent it; one of each is looked at at a time.

        Raises:
            Refused: the script cannot run here; with its own code and the line.
        """
        ...


class ResultPoster(Protocol):
    """Puts a result's hash on-chain."""

    async def commit_result(self, lease_id: LeaseId, computation_id: ComputationId, result_hash: Hash32) -> str:
        """Commit once, however often called; returns the transaction hash when it is mined.

        Raises:
            Refused: the contract will never take it (the sentence says why).
            Unavailable: not now.
        """
        ...


class MessageBroker(Protocol):
    """Publishes the node's life."""

    async def publish(self, topic: str, payload: dict[str, Any]) -> None:
        """Hand one message over, at least once.

        Raises:
            Unavailable: the broker did not take it.
        """
        ...


class Catalogue(Protocol):
    """The products on offer, from memory."""

    def find_by_hash(self, product_hash: Hash32) -> Product | None:
        """The product that a lease's `dataProductId` names."""
        ...

    def find_by_id(self, product_id: str) -> Product | None: ...

    def list_products(self) -> list[Product]: ...
