"""The limits of one computation. Units are in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

MAX_CODE_BYTES: Final = 102_400
"""100 KB of UTF-8: the one constant for the largest script."""

MIB: Final = 1024 * 1024


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
