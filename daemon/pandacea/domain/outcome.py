"""How one computation ended in its sandbox: an `Outcome` with a typed cause."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Failure(StrEnum):
    """Why a computation did not complete. The first group is on the script's account, the second is not."""

    SCRIPT_ERROR = "script-error"
    TIME_LIMIT = "time-limit"
    MEMORY_LIMIT = "memory-limit"
    PROCESS_LIMIT = "process-limit"
    DISK_LIMIT = "disk-limit"
    OUTPUT_TOO_LARGE = "output-too-large"
    ARTIFACT_REFUSED = "artifact-refused"
    GUEST_DIED = "guest-died"
    CANCELLED = "cancelled"
    LEASE_LOST = "lease-lost"

    QUEUE_DEADLINE = "queue-deadline"  # waited longer than the queue allows: never charged
    DATA_UNREADABLE = "data-unreadable"  # the Earner's asset could not be opened as a table: never charged
    SANDBOX_FAILED = "sandbox-failed"  # engine or host, seen independently of the guest: never charged
    INTERRUPTED = "interrupted"  # the node stopped before any result was kept
    RESULT_REFUSED = "result-refused"  # the Earner looked at the result and does not release it


@dataclass(frozen=True, slots=True)
class ScriptError:
    """The script's own exception: class name, line in the script (1-based), and the message."""

    type: str
    line: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file the script left in /workspace: a safe relative name, and where the node keeps its bytes."""

    name: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one run. `failure is None` means the script ended by itself without an exception."""

    failure: Failure | None
    detail: str
    """One sentence for the Spender: the cause, the file or cap it names, and what to do."""
    output: bytes
    """stdout and stderr as the script wrote them, at most `limits.output_bytes`; hostile."""
    artifacts: tuple[Artifact, ...] = ()
    script_error: ScriptError | None = None
    exit_status: int | None = None
    code_started: bool = False
    """The guest acknowledged the first byte of the script: from then on the run is charged."""
    truncated: bool = False
    seconds: float = 0.0
    usage: dict[str, int | float] = field(default_factory=dict)


def not_stored_detail(problem: OSError) -> str:
    """Return the sentence for a result that the node's own disk did not take: full, out of inodes, over a quota, broken or hanging."""
    reason = os.strerror(problem.errno) if problem.errno else "it does not answer"
    return (
        f"The node could not store the result on its own disk ({reason}); nothing of it was kept, and nothing is charged unless "
        "some of it was shown while it ran. Try again later, or tell the Earner."
    )
