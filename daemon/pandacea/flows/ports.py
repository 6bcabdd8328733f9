"""What the flows need from outside, as Protocols that adapters implement. The database has its own: `unit_of_work`, `chain_store`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from pandacea.domain.access import CachedLease, ChainStatus
from pandacea.domain.ids import Address, AssetId, ComputationId, Hash32, LeaseId
from pandacea.domain.lease_record import LeaseRecord
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Outcome
from pandacea.domain.product import Product
from pandacea.domain.table import Recipe, TableShape
from pandacea.errors import Refused
from pandacea_sdk.protocol.json_types import JsonObject


class Clock(Protocol):
    """The time as an argument, so that a test needs no sleeping."""

    def now(self) -> float:
        """Return the time in Unix seconds."""
        ...


class JobPhase(StrEnum):
    """Where a computation spends its time, from the accepted request to the written result."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHING = "finishing"


class TableFormat(StrEnum):
    """How a stored table's bytes are read."""

    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class InputTable:
    """One asset of one computation: the sandbox gets a read-only descriptor of `path`, never the folder."""

    asset_id: AssetId
    variable_name: str
    path: Path
    format: TableFormat
    commitment: str | None = None
    """Commitment to these rows, hex; None: mock rows, which nobody signs for."""


@dataclass(frozen=True, slots=True)
class SandboxJob:
    """Everything that one sandbox is given."""

    computation_id: ComputationId
    code: bytes
    params: bytes
    """JSON text: becomes the script's `params`."""
    inputs: tuple[InputTable, ...]
    uploads: Mapping[str, Path]
    """File name under /workspace/in -> the node's file."""
    limits: Limits
    seed: int
    """What the script's random generators start from; 32 bits."""
    threads: int
    """Threads that the script's libraries may use."""
    results_dir: Path
    """An empty folder of the node's own: artifacts are written there as 0, 1, 2 ..."""
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
    modules: tuple[str, ...] = ()
    """The top-level modules that these packages bring; empty: not known."""


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
    """The guest acknowledged the first byte of the script: the run is charged from then on."""


SandboxEvent = CodeStarted | OutputWritten | ProgressReported


class Sandbox(Protocol):
    """Runs each computation in an instance of its own, which is destroyed afterwards."""

    async def start(self) -> SandboxIdentity:
        """Check that instances can be made here (engine, image, self-test), remove leftovers, start the pool.

        Raises:
            Broken: an instance cannot be made or a limit does not hold; the message says which and what to do.
        """
        ...

    async def run_job(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        """Run one job to its end. Never raises for what a script does; cancelling the task destroys the instance and re-raises.

        Raises:
            Unavailable: engine or host failed before any user code ran; the job may be tried again.
        """
        ...

    async def stop(self) -> None:
        """Destroy every instance that this node made."""
        ...


class LeaseCache(Protocol):
    """The leases in memory, as the follower keeps them: O(1), exact at every moment."""

    def find_lease(self, lease_id: LeaseId) -> CachedLease | None:
        """Return an approved lease of this Earner; None: it is not known here."""
        ...

    def chain_status(self) -> ChainStatus:
        """Return how far the chain was read, and whether that may be relied on now."""
        ...

    def knows_spender(self, address: Address) -> bool:
        """Return whether this address is the Spender of an approved lease of this Earner."""
        ...

    def subscribe(self, callback: Callable[[LeaseId | None], None]) -> Callable[[], None]:
        """Call back after a lease changed (None: any may have, or the chain status did). Returns a function that ends it."""
        ...


class CodeChecker(Protocol):
    """Gives an early, clear error about a script. It is not the boundary: the sandbox is."""

    async def check_code(self, code: str, owner: str = "") -> None:
        """Check a script before it is queued. `owner`: who sent it; of each owner one script is checked at a time.

        Raises:
            Refused: the script cannot run here; with its own code and the line.
        """
        ...


class Commitment(NamedTuple):
    """A result hash to be committed on-chain."""

    lease_id: LeaseId
    computation_id: ComputationId
    result_hash: Hash32


class ResultPoster(Protocol):
    """Commits result hashes on-chain."""

    async def commit_results(self, commitments: Sequence[Commitment]) -> Mapping[Commitment, str | None]:
        """Send commitments, each once however often called; returns for each why it is not on its way (None: it is).

        Whether it arrived, the followed chain shows.

        Raises:
            Unavailable: nothing could be decided; try again later.
        """
        ...

    async def call_lease(self, name: str, lease_id: LeaseId) -> None:
        """Send a call of the contract that takes a lease and nothing else, unless it is on its way.

        Raises:
            Unavailable: not now; the reason.
        """
        ...


class FinalizedLeases(Protocol):
    """What the followed chain shows for good: up to the block at which approvals count."""

    def confident_block(self) -> int:
        """Return the number of that block; -1: none yet."""
        ...

    def takes_results(self) -> bool:
        """Return whether the contract has a place for results; the first version has none.

        Raises:
            Unavailable: the contract was not looked at yet.
        """
        ...

    async def list_payable(self) -> list[LeaseId]:
        """List leases that were not closed when they were settled, have a price, and have a committed result."""
        ...

    async def load_leases(self, ids: Sequence[LeaseId]) -> tuple[Mapping[LeaseId, LeaseRecord], int]:
        """Return the leases as of that block, and its timestamp (Unix seconds; 0: none yet).

        Raises:
            Unavailable: the database does not answer, or nothing was read yet.
        """
        ...


class MessageBroker(Protocol):
    """Publishes events of the node over MQTT."""

    async def publish(self, topic: str, payload: JsonObject) -> None:
        """Publish one message, at least once.

        Raises:
            Unavailable: the broker did not take it.
        """
        ...


class WebhookReceiver(Protocol):
    """Takes events of the node over HTTP."""

    async def send(self, payload: JsonObject, now: float) -> None:
        """Send one signed event, at least once; `now` in Unix seconds.

        Raises:
            Unavailable: the receiver did not take it.
        """
        ...


class Catalogue(Protocol):
    """The products on offer, in memory."""

    def find_by_hash(self, product_hash: Hash32) -> Product | None:
        """Return the product that a lease's `dataProductId` names; None: it is not on offer."""
        ...

    def find_by_id(self, product_id: str) -> Product | None:
        """Return a product by its id; None: it is not on offer."""
        ...

    def list_products(self) -> list[Product]:
        """Return every product on offer."""
        ...


# What registration needs of a sandbox: turn a source into a table, by descriptors.

CHUNK_BYTES: Final = 16 << 20
"""Bytes of text that are parsed at a time: what a conversion's memory is a multiple of."""


class UnreadableSource(Refused):
    """The file is not a table that can be served."""

    code = "unfit-source"


@dataclass(frozen=True, slots=True)
class ConversionJob:
    """One conversion. `scratch` and `table` are new, empty files of the node's own; only the sandbox uses them until it ends."""

    source: int
    """An open descriptor, read-only; the caller closes it."""
    recipe: Recipe
    limits: Limits
    """`memory_bytes`, `cpus`, `time_seconds` and the sizes of the sandbox's folders; the rest does not apply."""
    max_table_bytes: int
    """Bytes that the table, and the scratch file, may each take on the disk."""
    scratch: Path | None
    table: Path | None
    """Both None: read only the start of the source."""
    types: Mapping[str, str] | None = None
    """Column types to read a small CSV file as (a mock), instead of inferring them."""
    missing_as_nan: bool = False
    """With `types`: missing numbers are NaN in a frame, as in a table that came from text."""
    chunk_bytes: int = CHUNK_BYTES


class TableConverter(Protocol):
    """Reads a file that nobody trusts, in a sandbox."""

    async def convert_table(self, job: ConversionJob, on_progress: Callable[[float, float], None]) -> TableShape:
        """Read `job.source` and write `job.table`. `on_progress(done, total)` is called from time to time.

        Raises:
            UnreadableSource: the file is not a table; the sentence names line, column and what to do.
            Unavailable: the sandbox failed; nothing is known about the file.
        """
        ...
