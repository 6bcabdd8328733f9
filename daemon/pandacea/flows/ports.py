"""What the journeys need from the world, as Protocols. Adapters implement them; `tests/fakes.py` fakes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pandacea.domain.access import Answer, ChainStanding, KnownLease
from pandacea.domain.charge import Charge
from pandacea.domain.code import CodeState, Submission
from pandacea.domain.ids import Address, AssetId, ComputationId, Hash32, LeaseId, LeaseKey
from pandacea.domain.job import Job, JobState
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Outcome
from pandacea.domain.product import Asset, Product


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
    stderr: bool = True
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


class LeaseBook(Protocol):
    """The leases as the follower keeps them: from memory, O(1), exact at every moment."""

    def lease(self, lease_id: LeaseId) -> KnownLease | None: ...

    def standing(self) -> ChainStanding: ...

    def knows_spender(self, address: Address) -> bool:
        """Whether this address is the spender of an approved lease of this Earner."""
        ...

    def on_change(self, callback: Callable[[LeaseId | None], None]) -> Callable[[], None]:
        """Call back after a lease changed (None: any of them may have, or the standing did). Returns how to stop it."""
        ...


@dataclass(frozen=True, slots=True)
class RunQuestion:
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

    def verify_lease(self, question: RunQuestion) -> Answer:
        """Say whether this caller may start a new computation on these assets now. From memory, at once."""
        ...

    async def execute_computation(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        """Run an accepted computation to its end, as `Sandbox.run`."""
        ...


@dataclass(frozen=True, slots=True)
class KeptArtifact:
    """An artifact as the node keeps it: `file` is its file's name in the job's results folder."""

    name: str
    file: str
    size: int
    sha256: str


class Channel(StrEnum):
    """Where an outbox message is going."""

    MQTT = "mqtt"
    CHAIN = "chain"


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell the world, at least once; `key` makes its effect happen once."""

    channel: Channel
    key: str
    topic: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message in the outbox."""

    id: int
    created_at: float
    attempts: int
    message: Message


class CodeChecker(Protocol):
    """The early, clear error about a script. Never the boundary: the box is."""

    async def check(self, code: str) -> None:
        """Look at a script before it is queued.

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


class Broker(Protocol):
    """Publishes the node's life."""

    async def publish(self, topic: str, payload: dict[str, Any]) -> None:
        """Hand one message over, at least once.

        Raises:
            Unavailable: the broker did not take it.
        """
        ...


class JobRows(Protocol):
    """The jobs of the database, inside one transaction or view."""

    async def add(self, job: Job) -> None: ...
    async def get(self, computation_id: str) -> Job | None: ...
    async def by_idempotency_key(self, spender: Address, lease: LeaseKey, key: str) -> Job | None: ...
    async def counted(self, key: LeaseKey) -> dict[Charge, int]: ...
    async def live(self, key: LeaseKey) -> int: ...
    async def queued(self, spender: Address | None = None) -> int: ...
    async def next_pending(self, without: Collection[LeaseId] = ()) -> Job | None: ...
    async def in_state(self, *states: JobState) -> list[ComputationId]: ...
    async def move(self, computation_id: str, source: JobState, target: JobState, **values: Any) -> bool: ...
    async def charge(self, computation_id: str) -> None: ...
    async def show(self, computation_id: str, now: float) -> bool: ...
    async def ask_to_cancel(self, computation_id: str) -> None: ...
    async def set_token(self, computation_id: str, token_sha256: str) -> None: ...
    async def add_artifacts(self, computation_id: str, artifacts: Sequence[KeptArtifact]) -> None: ...
    async def artifacts(self, computation_id: str) -> list[KeptArtifact]: ...
    async def forget_artifacts(self, computation_id: str) -> None: ...
    async def stored(self) -> int: ...
    async def with_results(self) -> set[str]: ...
    async def oldest_results(self, before: float) -> list[tuple[ComputationId, int]]: ...
    async def uploads_wanted(self) -> set[tuple[str, str]]: ...
    async def ended_before(self, time: float) -> list[ComputationId]: ...
    async def forget_result(self, computation_id: str, now: float) -> None: ...


class UploadRows(Protocol):
    """What Spenders handed in beside their scripts, inside one transaction or view."""

    async def put(self, spender: Address, sha256: str, size: int, expires_at: float) -> None: ...
    async def has(self, spender: Address, sha256: str, now: float) -> bool: ...
    async def taken(self, spender: Address | None = None) -> tuple[int, int]: ...
    async def expired(self, now: float) -> list[tuple[str, str]]: ...
    async def all(self) -> set[tuple[str, str]]: ...
    async def remove(self, spender: str, sha256: str) -> None: ...


class CodeRows(Protocol):
    """Scripts handed in for approval, inside one transaction or view."""

    async def add(self, submission: Submission) -> None: ...
    async def get(self, code_id: str) -> Submission | None: ...
    async def of_script(self, product_id: str, code_sha256: str) -> list[Submission]: ...
    async def all(self, state: CodeState | None = None) -> list[Submission]: ...
    async def pending(self, *, submitter: Address | None = None, known: bool | None = None) -> int: ...
    async def decide(self, code_id: str, state: CodeState, reason: str, now: float) -> bool: ...
    async def prune(self, before: float) -> int: ...


class OutboxRows(Protocol):
    """The outbox of the database, inside one transaction or view."""

    async def put(self, message: Message, now: float) -> None: ...
    async def waiting(self, channel: Channel, now: float, limit: int = 100) -> list[Waiting]: ...
    async def delivered(self, row_id: int, now: float, result: str | None = None) -> None: ...
    async def again(self, row_id: int, next_at: float, reason: str) -> None: ...
    async def depth(self, channel: Channel) -> int: ...
    async def prune(self, before: float) -> int: ...


class View(Protocol):
    """A consistent look at the database."""

    @property
    def jobs(self) -> JobRows: ...
    @property
    def uploads(self) -> UploadRows: ...
    @property
    def code(self) -> CodeRows: ...
    @property
    def outbox(self) -> OutboxRows: ...


class Work(View, Protocol):
    """A transaction: undone unless `commit` is called, once, last."""

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run `callback` when the commit is durable."""
        ...

    async def commit(self) -> None: ...


class Books(Protocol):
    """The node's database as the journeys see it."""

    def write(self) -> AbstractAsyncContextManager[Work]: ...
    def read(self) -> AbstractAsyncContextManager[View]: ...

    async def prune_nonces(self, before: int) -> None:
        """Forget request nonces that expired before a time (Unix seconds)."""
        ...


class Catalogue(Protocol):
    """The products on offer, from memory."""

    def by_hash(self, product_hash: Hash32) -> Product | None:
        """The product that a lease's `dataProductId` names."""
        ...

    def by_id(self, product_id: str) -> Product | None: ...

    def all(self) -> list[Product]: ...


class ProductBook(Protocol):
    """Products and the versions of their assets, in the database."""

    async def offered(self) -> set[str]: ...
    async def version(self, version: Hash32) -> str | None: ...
    async def publish(self, product: Product, now: float) -> None: ...
    async def withdraw(self, product_id: str, now: float) -> None: ...
    async def asset(self, product_id: str, asset_id: AssetId, digest: str) -> Asset | None: ...
    async def asset_by_recipe(self, product_id: str, asset_id: AssetId, recipe: str) -> Asset | None: ...
    async def seen(self, commitment: str, recipe: str, stamp: str) -> None: ...
    async def asset_by_commitment(self, commitment: str) -> Asset | None: ...
    async def add_asset(self, product_id: str, asset: Asset, digest: str, key: bytes, size: int, now: float) -> None: ...
