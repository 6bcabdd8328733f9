"""A job and its states: a job is a row, and every row ends in a terminal state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pandacea.domain.charge import Charge
from pandacea.domain.ids import Address, ComputationId, Hash32, LeaseId, LeaseKey, ProductId
from pandacea.domain.outcome import Failure
from pandacea.domain.product import LiveOutput, Release
from pandacea_sdk.protocol.json_types import JsonObject


class Mode(StrEnum):
    """Which rows a script runs on: the leased ones, or the product's mock rows (a rehearsal)."""

    LIVE = "live"
    MOCK = "mock"


NO_RESULT_FAILURES: Final = frozenset(
    {
        Failure.QUEUE_DEADLINE,
        Failure.DATA_UNREADABLE,
        Failure.SANDBOX_FAILED,
        Failure.INTERRUPTED,
        Failure.LEASE_LOST,
        Failure.CANCELLED,
        Failure.RESULT_REFUSED,
    }
)
"""Failures of a rehearsal that left nothing to show."""


class JobState(StrEnum):
    """PENDING -> RUNNING -> HELD -> COMPLETED | FAILED | CANCELLED."""

    PENDING = "pending"
    RUNNING = "running"
    HELD = "held"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})

JOB_TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    # RUNNING -> PENDING only when no user code ran (a retry of ours).
    JobState.PENDING: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {JobState.PENDING, JobState.HELD, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED},
    ),
    JobState.HELD: frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One computation, with the columns of its row. Times are Unix seconds; JSON members are as on the wire."""

    computation_id: ComputationId
    chain_id: int
    contract: Address
    lease_id: LeaseId
    spender: Address
    request_hash: Hash32
    body_sha256: str
    mode: Mode
    product_id: ProductId
    product_version: Hash32
    code: str
    params: str
    """JSON text: what the Spender sent, serialised again by the node."""
    inputs: list[dict[str, str]]
    """`{"asset_id", "variable_name", "commitment"}`: the commitment pins the version of the asset."""
    uploads: dict[str, str]
    policy_decision: str
    release: str
    live_output: str
    show_messages: bool
    max_computations: int
    created_at: float
    queue_deadline: float
    state: JobState = JobState.PENDING
    charge: Charge = Charge.RESERVED
    idempotency_key: str | None = None
    token_sha256: str | None = None
    attempt: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    failure: Failure | None = None
    detail: str = ""
    error: JsonObject | None = None
    output: bytes = b""
    truncated: bool = False
    manifest: str | None = None
    result_hash: Hash32 | None = None
    receipt: JsonObject | None = None
    removed_at: float | None = None
    """When the result's bytes were thrown away."""
    live_at: float | None = None
    """When the first of its live output or progress left the node."""
    cancel_asked: bool = False
    """Its Spender asked to cancel it while it ran: whatever comes of the run, it ends CANCELLED."""
    stored_bytes: int = 0
    """Bytes that its result takes: output and artifacts."""
    seed: int | None = None
    """What its Spender wants the random generators to start from (32 bits); None: derived from the computation id."""

    @property
    def lease_key(self) -> LeaseKey:
        """The lease that it runs under."""
        return LeaseKey(self.chain_id, self.contract, self.lease_id)

    def charge_for_mode(self, charge: Charge) -> Charge:
        """Return `charge`, or FREE for a rehearsal on mock rows, for which nothing is ever charged or signed."""
        return Charge.FREE if self.mode is Mode.MOCK else charge

    @property
    def effective_live_output(self) -> LiveOutput:
        """What may leave while it runs: nothing where the result will be held, whatever the product says."""
        return LiveOutput.NONE if self.release == Release.HOLD else LiveOutput(self.live_output)

    @property
    def has_result(self) -> bool:
        """Whether there is, or was, a result: a signed one of a leased run, or what the script of a rehearsal left."""
        return self.receipt is not None or (self.mode is Mode.MOCK and self.failure not in NO_RESULT_FAILURES)

    def held_visible_at(self, time_limit: float) -> float:
        """Return the Unix time from which a held computation reads as `held`.

        Until the run's time limit has passed since its start it reads as `running`, so that its duration is not a message.
        """
        return (self.started_at or self.created_at) + time_limit

    def visible_state(self, now: float, time_limit: float) -> JobState:
        """Return the state as its Spender may see it now; `now` in Unix seconds, the limit in seconds."""
        if self.state is JobState.HELD and now < self.held_visible_at(time_limit):
            return JobState.RUNNING
        return self.state
