"""What both kinds of box have in common: a shape, a connected socket, an end, and a way to destroy it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Final, Protocol

from pandacea.domain.limits import MIB, Limits
from pandacea.errors import BadConfig
from pandacea.flows.ports import SandboxIdentity
from pandacea.sandbox.settings import SHM_BYTES

_SUPERVISOR_BYTES: Final = 320 * MIB  # PID 1 with pandas and torch imported
_MARGIN_BYTES: Final = 64 * MIB


@dataclass(frozen=True, slots=True)
class InstanceShape:
    """The limits a box is born with; time, output and artifact caps belong to the job instead."""

    memory_bytes: int
    cpus: float
    pids: int
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int

    @classmethod
    def from_limits(cls, limits: Limits) -> InstanceShape:
        """Return the shape these limits ask for.

        Raises:
            BadConfig: a script could fill its tmpfs and so have its supervisor killed: memory must hold both.
        """
        least = limits.workspace_bytes + limits.tmp_bytes + SHM_BYTES + _SUPERVISOR_BYTES + _MARGIN_BYTES
        if limits.memory_bytes < least:
            raise BadConfig(
                f"memory_bytes={limits.memory_bytes} is too small: workspace_bytes, tmp_bytes, {SHM_BYTES} for /dev/shm, "
                f"{_SUPERVISOR_BYTES} for the supervisor and {_MARGIN_BYTES} to spare need {least}; raise it or lower the others"
            )
        return cls(limits.memory_bytes, limits.cpus, limits.pids, limits.workspace_bytes, limits.workspace_inodes, limits.tmp_bytes)


class SandboxInstance(Protocol):
    """One box with a guest that waits for its only job."""

    sock: socket.socket
    """Non-blocking SOCK_SEQPACKET."""
    preloaded: bool
    out_of_memory: asyncio.Event
    """Set when kernel or engine report that something in the box was killed for memory."""
    watched_memory_bytes: int
    """Not 0: no cgroup holds the memory, so the guest's supervisor must watch it."""

    async def host_failure(self) -> str | None:
        """Why the box ended, when that is seen without the guest's word and is not the script's doing; else None."""
        ...

    async def destroy(self) -> None:
        """End every process of the box at once and remove what it left; idempotent."""
        ...


class SandboxBackend(Protocol):
    """One way to make boxes."""

    warnings: list[str]
    """What this machine does not allow and what holds instead."""

    @property
    def preload_is_free(self) -> bool:
        """Whether a warm box costs no import now."""
        ...

    @property
    def uids(self) -> range | None:
        """The kernel's uids that boxes have, one each while they live; None: all have the node's own."""
        ...

    @property
    def leaves_no_access_time(self) -> bool:
        """Whether a script that opens its table again moves no access time."""
        ...

    async def open(self) -> SandboxIdentity:
        """Check that boxes can be made, remove what an earlier run of this node left; see `Sandbox.open`."""
        ...

    async def create_instance(self, shape: InstanceShape, preload: tuple[str, ...], boot_seconds: float) -> SandboxInstance:
        """Make a box whose guest has said hello.

        Raises:
            Unavailable: the engine or host did not manage; nothing is left behind.
        """
        ...

    async def close(self) -> None:
        """Remove everything this maker made."""
        ...
