"""One bubblewrap box: a guest that is PID 1 of its own process namespace, held by a descriptor of that process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from typing import Final

from pandacea.errors import Unavailable
from pandacea.sandbox.cgroups import BoxCgroup
from pandacea.sandbox.conversation import GuestLostError
from pandacea.sandbox.guest import wire
from pandacea.sandbox.hello import check

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid: SCM_CREDENTIALS, unix(7); the kernel translates the pid to our namespace
_STDERR_BYTES: Final = 4096
_WORDS_SECONDS: Final = 2.0


class BubblewrapBox:
    """See `Box`. `process` is bubblewrap itself, or None for a box that a template made."""

    def __init__(
        self, sock: socket.socket, warm: bool, cgroup: BoxCgroup | None, process: asyncio.subprocess.Process | None
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock, self.warm = sock, warm
        self.out_of_memory = asyncio.Event()
        self.watched_memory_bytes = 0
        self.destroyed = False
        self._cgroup, self._process = cgroup, process
        self._pidfd = -1

    async def greet(self) -> None:
        """Wait for the guest's hello and take hold of its PID 1. Raises Unavailable."""
        if self._cgroup is not None:
            self._cgroup.watch(self.out_of_memory.set)
        try:
            payload, pid = await self._hello()
            self._pidfd = os.pidfd_open(pid)  # it waits for a job, so this pid is still its own
            check(payload)
        except (Unavailable, GuestLostError, OSError) as error:
            words = await self._words()
            raise Unavailable(f"the guest did not start: {error}{words}") from error

    async def _hello(self) -> tuple[bytes, int]:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not arrived.done():
                arrived.set_result(None)

        loop.add_reader(self.sock, wake)
        try:
            await arrived
        finally:
            loop.remove_reader(self.sock)
        data, ancillary, _, _ = self.sock.recvmsg(wire.MAX_PAYLOAD + 1, socket.CMSG_SPACE(_UCRED.size))
        if not data:
            raise GuestLostError("it ended")
        pids = [
            _UCRED.unpack(value)[0]
            for level, kind, value in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ]
        if not pids or pids[0] <= 0:
            raise GuestLostError("its process cannot be seen from here")
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        return data, pids[0]

    async def _words(self) -> str:
        if self._process is None or self._process.stderr is None:
            return ""
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            self._process.kill()
        try:
            async with asyncio.timeout(_WORDS_SECONDS):  # a guest that lives on holds the other end of this pipe
                said = (await self._process.stderr.read())[-_STDERR_BYTES:].decode("utf-8", "replace").strip()
        except TimeoutError:
            return ""
        return f"; it said: {said}" if said else ""

    async def host_failure(self) -> str | None:
        """Nothing but the script or our own `destroy` ends these processes."""
        return None

    async def destroy(self) -> None:
        """Kill PID 1, with which the kernel ends everything in its process namespace, and wait for it."""
        if self.destroyed:
            return
        self.destroyed = True
        self.sock.close()
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await _ended(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        elif self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        if self._process is not None:
            await self._process.wait()
        if self._cgroup is not None:
            await self._cgroup.remove()


async def _ended(pidfd: int) -> None:
    """Return when the process behind a pidfd has ended (the descriptor then reads as ready)."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(pidfd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(pidfd)
