"""The limits of one computation. Units are in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Final

from pandacea_sdk.protocol.limits import MAX_CODE_BYTES, MIB

SHM_BYTES: Final = 16 * MIB
"""Shared memory of a sandbox in bytes: room for semaphores, a tmpfs like /workspace and /tmp."""
SUPERVISOR_BYTES: Final = 320 * MIB
"""Memory of a sandbox's PID 1 in bytes, with pandas and torch imported."""
MEMORY_MARGIN_BYTES: Final = 64 * MIB
"""Memory of a sandbox in bytes that nothing is planned to use."""
RESERVED_MEMORY_BYTES: Final = SHM_BYTES + SUPERVISOR_BYTES + MEMORY_MARGIN_BYTES
"""What a sandbox's memory must hold beside /workspace and /tmp, in bytes: full tmpfs must never be what kills the supervisor."""

REHEARSAL_SECONDS: Final = 120.0
"""Longest time limit of a rehearsal, in seconds."""
REHEARSAL_BYTES: Final = 4 * MIB
"""Bytes that the artifacts of a rehearsal may have, each and together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use and what may leave it. What exceeds a limit is refused whole, never cut silently."""

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
        """Return the manifest's `limits` member: field names and units as here."""
        return asdict(self)

    @property
    def min_memory_bytes(self) -> int:
        """The smallest `memory_bytes` that holds full tmpfs and the supervisor: tmpfs pages count against the memory limit."""
        return self.workspace_bytes + self.tmp_bytes + RESERVED_MEMORY_BYTES

    @property
    def largest_result(self) -> int:
        """Bytes that a result may have at most: output and artifacts."""
        return self.artifacts_bytes + self.output_bytes

    def of_rehearsals(self) -> Limits:
        """Return the limits of a rehearsal, which nobody pays for: the same sandbox, less time, and less that may leave it."""
        return replace(
            self,
            time_seconds=min(self.time_seconds, REHEARSAL_SECONDS),
            artifact_bytes=min(self.artifact_bytes, REHEARSAL_BYTES),
            artifacts_bytes=min(self.artifacts_bytes, REHEARSAL_BYTES),
        )


__all__ = ["MAX_CODE_BYTES", "MIB", "REHEARSAL_BYTES", "REHEARSAL_SECONDS", "Limits"]
