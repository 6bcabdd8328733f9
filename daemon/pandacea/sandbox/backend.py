"""What a sandbox backend implements: instances with a connected socket, and how each is created and destroyed."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pandacea.domain.limits import MEMORY_MARGIN_BYTES, SHM_BYTES, SUPERVISOR_BYTES, Limits
from pandacea.errors import BadConfig
from pandacea.flows.ports import SandboxIdentity

WORKSPACE_DIR: Final = "/workspace"
TMP_DIR: Final = "/tmp"  # noqa: S108 - a tmpfs of the sandbox's own, not the machine's folder
SHM_DIR: Final = "/dev/shm"  # noqa: S108 - as above


@dataclass(frozen=True, slots=True)
class InstanceShape:
    """The limits an instance is created with; limits on time, output and artifacts belong to the job instead."""

    memory_bytes: int
    cpus: float
    pids: int
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int

    @classmethod
    def from_limits(cls, limits: Limits) -> InstanceShape:
        """Return the shape for these limits.

        Raises:
            BadConfig: memory does not hold both the tmpfs and the supervisor, so a script could have it killed by filling the tmpfs.
        """
        if limits.memory_bytes < limits.min_memory_bytes:
            raise BadConfig(
                f"memory_bytes={limits.memory_bytes} is too small: workspace_bytes, tmp_bytes, {SHM_BYTES} for /dev/shm, "
                f"{SUPERVISOR_BYTES} for the supervisor and {MEMORY_MARGIN_BYTES} to spare need {limits.min_memory_bytes}; "
                "raise it or lower the others"
            )
        return cls(limits.memory_bytes, limits.cpus, limits.pids, limits.workspace_bytes, limits.workspace_inodes, limits.tmp_bytes)


class SandboxInstance(Protocol):
    """One sandbox whose guest waits for its only job."""

    sock: socket.socket
    """Non-blocking SOCK_SEQPACKET."""
    out_of_memory: asyncio.Event
    """Set when the kernel or the engine reports that a process of the instance was killed for memory."""
    watched_memory_bytes: int
    """Memory in bytes that the guest's supervisor must enforce by polling; 0: a control group enforces it."""

    async def host_failure(self) -> str | None:
        """Return why the instance ended, where the host shows it without the guest's report and no script causes it; else None."""
        ...

    async def destroy(self) -> None:
        """Kill every process of the instance and remove what it left; idempotent."""
        ...


class SandboxBackend(Protocol):
    """One way to create sandbox instances."""

    warnings: list[str]
    """What this machine does not allow and what is used instead, one sentence each; known after `open`."""

    @property
    def preload_is_free(self) -> bool:
        """Whether a preloaded instance can be created without waiting for imports."""
        ...

    @property
    def uids(self) -> range | None:
        """The kernel uids of instances, each used by one live instance; None: all instances have the node's own uid."""
        ...

    @property
    def leaves_no_access_time(self) -> bool:
        """Whether the access time of a table stays when a script opens it again."""
        ...

    async def open(self) -> SandboxIdentity:
        """Check that instances can be created, and remove what an earlier run of this node left; see `Sandbox.start`."""
        ...

    async def create_instance(self, shape: InstanceShape, preload: tuple[str, ...], boot_seconds: float) -> SandboxInstance:
        """Create an instance and wait for its guest's hello. `preload`: modules that the guest imports before it.

        Raises:
            Unavailable: the engine or host did not create it within `boot_seconds`; nothing is left behind.
        """
        ...

    def open_input(self, path: Path) -> int:
        """Open a table or upload for a guest and return the descriptor; see `readonly_open.open_for_guest`."""
        ...

    async def close(self) -> None:
        """Remove everything this backend created."""
        ...
