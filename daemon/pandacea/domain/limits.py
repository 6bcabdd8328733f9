"""The limits of one computation. Units are in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Final

MAX_CODE_BYTES: Final = 102_400
"""100 KB of UTF-8: the one constant for the largest script."""

MIB: Final = 1024 * 1024

SHM_BYTES: Final = 16 * MIB
"""Shared memory of a sandbox in bytes: room for semaphores, a tmpfs like /workspace and /tmp."""
SUPERVISOR_BYTES: Final = 320 * MIB
"""Memory of a sandbox's PID 1 in bytes, with pandas and torch imported."""
MEMORY_MARGIN_BYTES: Final = 64 * MIB
"""Memory of a sandbox in bytes that nothing is planned to use."""
RESERVED_MEMORY_BYTES: Final = SHM_BYTES + SUPERVISOR_BYTES + MEMORY_MARGIN_BYTES
"""What a sandbox's memory must hold beside /workspace and /tmp, in bytes: full tmpfs must never be what kills the supervisor."""

REHEARSAL_SECONDS: Final = 120.0
"""A rehearsal's time limit at most."""
REHEARSAL_BYTES: Final = 4 * MIB
"""A rehearsal's artifacts at most, each and together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use and what may leave it; every cap is refused whole when broken, never cut silently."""

    memory_bytes: int = 1024 * MIB
    cpus: float = 1.0
    time_seconds: float = 300.0
    pids: int = 64
    workspace_bytes: int = 256 * MIB
    workspace_inodes: int = 4096
    tmp_bytes: int = 64 * MIB
    output_bytes: int = 1 * MIB
    artifact_bytes: int = 64 * MIB
    artifacts_bytes: int = 128 * MIB
    artifact_count: int = 64
    artifact_depth: int = 4

    def as_json(self) -> dict[str, int | float]:
        """The manifest's `limits` member: field names and units as here."""
        return asdict(self)

    @property
    def min_memory_bytes(self) -> int:
        """The smallest `memory_bytes` that holds full tmpfs and the supervisor: tmpfs pages count against the memory limit."""
        return self.workspace_bytes + self.tmp_bytes + RESERVED_MEMORY_BYTES

    @property
    def largest_result(self) -> int:
        """Bytes that a result may take at most: output and artifacts."""
        return self.artifacts_bytes + self.output_bytes

    def of_rehearsals(self) -> Limits:
        """The limits of a run on mock rows, which nobody pays for: the same box, less time, and less that may leave it."""
        return replace(
            self,
            time_seconds=min(self.time_seconds, REHEARSAL_SECONDS),
            artifact_bytes=min(self.artifact_bytes, REHEARSAL_BYTES),
            artifacts_bytes=min(self.artifacts_bytes, REHEARSAL_BYTES),
        )
