"""What the journeys need from the world, as Protocols. Adapters implement them; `tests/fakes.py` fakes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pandacea.domain.ids import AssetId, ComputationId
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Outcome


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
