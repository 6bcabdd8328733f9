"""Job states: a job is a row, and every row ends in a terminal state."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """PENDING -> RUNNING -> HELD -> COMPLETED | FAILED | CANCELLED."""

    PENDING = "pending"
    RUNNING = "running"
    HELD = "held"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})

MOVES: Final[dict[JobState, frozenset[JobState]]] = {
    # RUNNING -> PENDING only when no user code ran (a retry of ours).
    JobState.PENDING: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.PENDING, JobState.HELD, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.HELD: frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
