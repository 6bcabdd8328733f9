"""The node's database as the flows see it: the rows of one unit of work or read session, as Protocols.

`store.unit_of_work` implements them; what a method does is stated there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from pandacea.domain.charge import Charge
from pandacea.domain.code_approval import CodeRecord, CodeState
from pandacea.domain.ids import Address, AssetId, ComputationId, Hash32, LeaseId, LeaseKey, ProductId
from pandacea.domain.job import Job, JobState, Mode
from pandacea.domain.outcome import Failure
from pandacea.domain.product import Asset, Product
from pandacea.domain.table import TableShape
from pandacea.flows.messages import Event
from pandacea_sdk.protocol.audit import AuditRow
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact as the node stores it: `file` names its file in the job's results folder, `size` is in bytes."""

    name: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A stored result that counts against the quotas."""

    computation_id: ComputationId
    spender: Address
    size: int
    """In bytes: output and artifacts."""


@dataclass(frozen=True, slots=True)
class StartCriteria:
    """Which waiting jobs may start now."""

    now: float
    """Unix seconds."""
    max_running: int
    """Jobs of one Spender that may run at one time."""
    full_spenders: Collection[Address] = ()
    """Spenders whose quota of results would not take another."""
    skipped_leases: Collection[LeaseId] = ()
    """Leases on which the node cannot decide now."""
    modes: Collection[Mode] = tuple(Mode)
    """What the asking worker runs."""


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A held result in a list: a job without its script, params and output. Times in Unix seconds."""

    computation_id: ComputationId
    state: JobState
    product_id: ProductId
    spender: Address
    lease_id: LeaseId
    created_at: float
    started_at: float | None
    finished_at: float | None
    failure: Failure | None
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class UnseenRuns:
    """How a Spender's quotas must differ from the rows, so that they do not tell of runs whose results are held."""

    count: int
    """Runs that read as running although they ended, less those that run and read as cancelled; may be below 0."""
    stored_bytes: int
    """What the former left."""


class Channel(StrEnum):
    """Where an outbox message is delivered."""

    MQTT = "mqtt"
    WEBHOOK = "webhook"
    CHAIN = "chain"

    @property
    def is_ordered(self) -> bool:
        """Whether a message waits for the one before it: a subscriber keeps the last state it heard, a commitment stands alone.

        A webhook's messages say when they happened, and one that its receiver cannot take must not hold up the rest.
        """
        return self is Channel.MQTT


LISTENER_CHANNELS: Final = (Channel.MQTT, Channel.WEBHOOK)
"""Where events are told; each has messages, a bound and a delivery of its own."""


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """One message, delivered at least once; `key` makes its effect happen once."""

    channel: Channel
    key: str
    topic: str
    payload: JsonObject


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A message that waits in the outbox; times are Unix seconds."""

    id: int
    created_at: float
    attempts: int
    """Deliveries that failed."""
    message: OutboxMessage
    note: str | None = None
    """Why it was not delivered the last time."""


@dataclass(frozen=True, slots=True)
class WaitingMessages:
    """What waits on one channel."""

    count: int
    oldest_at: float | None
    """When the oldest was put there, in Unix seconds; None: nothing waits."""


class JobRows(Protocol):
    """The jobs, inside one unit of work or read session."""

    async def insert_job(self, job: Job) -> None: ...
    async def find_job(self, computation_id: str) -> Job | None: ...
    async def find_visible_job(self, computation_id: str) -> Job | None: ...
    async def find_token_hash(self, computation_id: str) -> str | None: ...
    async def find_by_idempotency_key(self, spender: Address, lease: LeaseKey, key: str) -> Job | None: ...
    async def count_by_charge(self, key: LeaseKey) -> dict[Charge, int]: ...
    async def count_queued(self, spender: Address | None = None) -> int: ...
    async def count_unseen(self, since: float) -> dict[Address, UnseenRuns]: ...
    async def find_next_pending(self, criteria: StartCriteria) -> Job | None: ...
    async def list_in_state(self, *states: JobState) -> list[ComputationId]: ...
    async def list_held(self) -> list[HeldRow]: ...
    async def change_state(self, computation_id: str, source: JobState, target: JobState, **values: Any) -> bool: ...
    async def mark_charged(self, computation_id: str) -> None: ...
    async def mark_shown(self, computation_id: str, now: float) -> bool: ...
    async def request_cancel(self, computation_id: str) -> None: ...
    async def update_token(self, computation_id: str, token_sha256: str) -> None: ...
    async def insert_artifacts(self, computation_id: str, artifacts: Sequence[StoredArtifact]) -> None: ...
    async def list_artifacts(self, computation_id: str) -> list[StoredArtifact]: ...
    async def delete_artifacts(self, computation_id: str) -> None: ...
    async def stored_bytes(self, mode: Mode) -> dict[Address, int]: ...
    async def count_running(self) -> dict[Address, int]: ...
    async def list_with_results(self) -> set[str]: ...
    async def list_oldest_results(self, mode: Mode, before: float) -> list[StoredResult]: ...
    async def list_needed_uploads(self) -> set[tuple[str, str]]: ...
    async def list_ended_before(self, mode: Mode, time: float) -> list[ComputationId]: ...
    async def list_uncharged(self, before: float, keep_each: int) -> list[ComputationId]: ...
    async def delete_jobs(self, computation_ids: Collection[ComputationId]) -> None: ...
    async def clear_scripts(self, before: float) -> int: ...
    async def clear_result(self, computation_id: str, now: float) -> None: ...


class UploadRows(Protocol):
    """The uploads, inside one unit of work or read session."""

    async def put_upload(self, spender: Address, sha256: str, size: int, expires_at: float) -> None: ...
    async def find_upload(self, spender: Address, sha256: str, now: float) -> tuple[int, float] | None: ...
    async def find_size(self, spender: Address, sha256: str, now: float) -> int | None: ...
    async def count_usage(self, spender: Address | None = None) -> tuple[int, int]: ...
    async def list_expired(self, now: float) -> list[tuple[str, str]]: ...
    async def list_all(self) -> set[tuple[str, str]]: ...
    async def delete_upload(self, spender: str, sha256: str) -> None: ...


class CodeRows(Protocol):
    """The scripts submitted for approval, inside one unit of work or read session."""

    async def insert_submission(self, submission: CodeRecord) -> None: ...
    async def find_submission(self, code_id: str) -> CodeRecord | None: ...
    async def find_by_script(self, product_id: str, code_sha256: str) -> list[CodeRecord]: ...
    async def list_submissions(self, state: CodeState | None = None) -> list[CodeRecord]: ...
    async def count_pending(self, *, submitter: Address | None = None, known: bool | None = None) -> int: ...
    async def record_decision(self, code_id: str, state: CodeState, reason: str, now: float) -> bool: ...
    async def prune_submissions(self, before: float, strangers_before: float) -> int: ...


class OutboxRows(Protocol):
    """The outbox, inside one unit of work or read session."""

    async def put_message(self, message: OutboxMessage, now: float) -> None: ...
    async def put_event(self, event: Event, now: float) -> None: ...
    async def fetch_due(self, channel: Channel, now: float, limit: int = 100) -> list[OutboxEntry]: ...
    async def mark_delivered(self, row_id: int, now: float, result: str | None = None) -> None: ...
    async def retry_message(self, row_id: int, next_at: float, reason: str) -> None: ...
    async def measure_waiting(self, channel: Channel) -> WaitingMessages: ...
    async def drop_waiting(self, channel: Channel, keep: int, before: float) -> int: ...
    async def prune_messages(self, delivered_before: float) -> int: ...


@dataclass(frozen=True, slots=True)
class Generation:
    """How often a node has started on a database or a leased computation has started to run; and the oldest request it takes."""

    number: int
    requests_since: int
    """Unix seconds: requests signed before are refused."""


class GenerationRows(Protocol):
    """The generation, inside one unit of work or read session."""

    async def load(self) -> Generation: ...
    async def advance(self) -> int: ...
    async def save(self, generation: Generation) -> None: ...


class CommitmentRows(Protocol):
    """The results that the chain shows, inside one unit of work or read session."""

    async def is_committed(self, lease: LeaseKey, computation_id: ComputationId) -> bool: ...


class AuditRows(Protocol):
    """The audit log, inside one unit of work or read session."""

    async def find_head(self) -> tuple[int, str]: ...
    async def append_entry(self, event: str, at: float, by: str, members: JsonMapping) -> None: ...
    async def list_rows(self, after: int = 0, limit: int = 1000) -> list[AuditRow]: ...
    async def list_signed(self) -> list[tuple[str, object, str | None]]: ...


class ReadSession(Protocol):
    """Reads that all see the database at one moment."""

    @property
    def jobs(self) -> JobRows: ...
    @property
    def uploads(self) -> UploadRows: ...
    @property
    def code(self) -> CodeRows: ...
    @property
    def outbox(self) -> OutboxRows: ...
    @property
    def generation(self) -> GenerationRows: ...
    @property
    def commitments(self) -> CommitmentRows: ...
    @property
    def audit(self) -> AuditRows: ...


class UnitOfWork(ReadSession, Protocol):
    """A transaction: rolled back unless `commit` is called, once, last."""

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run `callback` when the commit is durable."""
        ...

    async def commit(self) -> None: ...


class Database(Protocol):
    """The node's database: each block of `unit_of_work` is one transaction, each of `read_session` one consistent reading."""

    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]: ...
    def read_session(self) -> AbstractAsyncContextManager[ReadSession]: ...

    async def prune_nonces(self, before: int) -> None:
        """Delete request nonces that expired before a time (Unix seconds)."""
        ...


class ProductStore(Protocol):
    """Products and the versions of their assets; each method is a transaction of its own."""

    async def list_offered(self) -> set[str]: ...
    async def find_signature(self, version: Hash32) -> str | None: ...
    async def publish_version(self, product: Product, now: float) -> None: ...
    async def withdraw_product(self, product_id: str, now: float) -> None: ...
    async def find_asset(self, product_id: str, asset_id: AssetId, digest: str) -> Asset | None: ...
    async def find_asset_by_recipe(self, product_id: str, asset_id: AssetId, recipe: str) -> Asset | None: ...
    async def record_source(self, commitment: str, recipe: str, stamp: str, shape: TableShape) -> None: ...
    async def find_asset_by_commitment(self, commitment: str) -> Asset | None: ...
    async def add_asset(self, product_id: str, asset: Asset, digest: str, key: bytes, size: int, now: float) -> None: ...
