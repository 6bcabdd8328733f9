"""One bubblewrap instance: a guest that is PID 1 of its own process namespace, held by a pidfd of that process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from typing import Final

from pandacea.errors import Unavailable
from pandacea.sandbox.bubblewrap.cgroups import InstanceCgroup
from pandacea.sandbox.guest import packets
from pandacea.sandbox.readiness import wait_readable
from pandacea.sandbox.session import GuestLostError, check_hello_packet
from pandacea.sandbox.uids import InstanceUid

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid: SCM_CREDENTIALS, unix(7); the kernel translates the pid to our namespace
_STDERR_BYTES: Final = 4096
_STDERR_SECONDS: Final = 5.0


def connect_guest() -> tuple[socket.socket, socket.socket]:
    """Return the node's end of a new connection and the guest's.

    The kernel adds the sender's credentials only to packets sent after SO_PASSCRED was set, so this runs before the guest is started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, theirs


class BubblewrapInstance:
    """See `SandboxInstance`. `process`: bubblewrap itself, None where a zygote forked; `uid` None: the node's own."""

    def __init__(
        self,
        sock: socket.socket,
        cgroup: InstanceCgroup | None,
        process: asyncio.subprocess.Process | None,
        uid: InstanceUid | None,
    ) -> None:
        self.sock = sock
        self.out_of_memory = asyncio.Event()
        self.watched_memory_bytes = 0
        self.destroyed = False
        self._cgroup, self._process, self._uid = cgroup, process, uid
        self._pidfd = -1

    async def wait_ready(self) -> None:
        """Wait for the guest's hello and open a pidfd of its PID 1. Raises Unavailable."""
        if self._cgroup is not None:
            self._cgroup.watch_oom(self.out_of_memory.set)
        try:
            payload, pid = await self._receive_hello()
            self._pidfd = os.pidfd_open(pid)  # the guest waits for a job, so no other process can have got this pid
            check_hello_packet(payload)
        except (Unavailable, GuestLostError, OSError) as error:
            stderr = await self._read_stderr()
            raise Unavailable(f"the guest did not start: {error}{stderr}") from error

    async def _receive_hello(self) -> tuple[bytes, int]:
        """Return the first packet and the pid of its sender, as the kernel attests it."""
        await wait_readable(self.sock)
        data, ancillary, _, _ = self.sock.recvmsg(packets.MAX_PAYLOAD + 1, socket.CMSG_SPACE(_UCRED.size))
        if not data:
            raise GuestLostError("it ended")
        senders = [
            _UCRED.unpack(value) for level, kind, value in ancillary if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ]
        if not senders or senders[0][0] <= 0:
            raise GuestLostError("its process cannot be seen from the node's process namespace")
        pid, uid, gid = senders[0]
        if self._uid is not None and data[:1] == packets.HELLO and (uid, gid) != (self._uid.number,) * 2:
            raise GuestLostError(f"it runs as uid {uid} and group {gid}, not as its own, {self._uid.number}")
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        return data, pid

    async def _read_stderr(self) -> str:
        """End a guest that is not ready and return what it wrote to stderr, as the end of a sentence."""
        if self._process is None or self._process.stderr is None:
            return ""
        with contextlib.suppress(OSError):  # it ended by itself
            self.sock.shutdown(socket.SHUT_RDWR)  # a guest that waits for a job ends, and with it the last writer of stderr
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            self._process.kill()
        try:
            async with asyncio.timeout(_STDERR_SECONDS):
                stderr = await self._process.stderr.read()
        except TimeoutError:
            return "; it does not end"
        said = stderr[-_STDERR_BYTES:].decode("utf-8", "replace").strip()
        return f"; it said: {said}" if said else ""

    async def host_failure(self) -> str | None:
        """Return None: only the script or `destroy` ends these processes."""
        return None

    async def destroy(self) -> None:
        """Kill PID 1, with which the kernel ends everything in its process namespace, and wait for its end; idempotent."""
        if self.destroyed:
            return
        self.destroyed = True
        self.sock.close()
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await wait_readable(self._pidfd)  # readable once the process has ended
            os.close(self._pidfd)
            self._pidfd = -1
        elif self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                self._process.kill()
        if self._process is not None:
            await self._process.wait()
        if self._cgroup is not None:
            await self._cgroup.remove()
        if self._uid is not None:
            self._uid.release()
