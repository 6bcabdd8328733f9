"""A template: one process that has imported everything and forks itself into fresh boxes on request (bubblewrap as root)."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from pandacea.errors import Unavailable
from pandacea.sandbox.backend import InstanceShape
from pandacea.sandbox.guest import packets
from pandacea.sandbox.handshake import receive_hello
from pandacea.sandbox.settings import SHM_BYTES

_SHM_INODES = 64
_END_SECONDS = 5.0


def tmpfs_mounts(shape: InstanceShape, owner: int | None) -> list[tuple[str, str]]:
    """Target and options (tmpfs(5)) of the only places a box may write to; `owner` None: who mounts them."""
    mode = "mode=0700" if owner is None else f"mode=0700,uid={owner},gid={owner}"
    return [
        ("/workspace", f"{mode},size={shape.workspace_bytes},nr_inodes={shape.workspace_inodes}"),
        ("/tmp", f"{mode},size={shape.tmp_bytes},nr_inodes={shape.workspace_inodes}"),  # noqa: S108 - the box's own
        ("/dev/shm", f"{mode},size={SHM_BYTES},nr_inodes={_SHM_INODES}"),  # noqa: S108
    ]


class Zygote:
    """Talks to the template process. It never sees a job: every box is a fork of it with namespaces and limits of its own."""

    def __init__(self, process: asyncio.subprocess.Process, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._process, self._sock = process, sock

    async def wait_ready(self) -> None:
        """Wait until everything is imported. Raises Unavailable."""
        await receive_hello(self._sock, as_root=True)

    @property
    def is_alive(self) -> bool:
        """Whether it can still make boxes."""
        return self._process.returncode is None

    def fork(
        self, shape: InstanceShape, uid: int, theirs: socket.socket, cgroup_files: Sequence[Path], rlimits: dict[str, int]
    ) -> None:
        """Ask for a box that will say hello on `theirs`. Raises Unavailable when the template is gone."""
        files = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in cgroup_files]
        request = json.dumps({"uid": uid, "mounts": tmpfs_mounts(shape, uid), "rlimits": rlimits})
        descriptors = array.array("i", [theirs.fileno(), *files])
        try:
            self._sock.sendmsg(
                (packets.FORK, request.encode()), [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)], socket.MSG_NOSIGNAL
            )
        except OSError as error:
            raise Unavailable(f"the template process is gone: {error}") from error
        finally:
            for descriptor in files:
                os.close(descriptor)

    async def close(self) -> None:
        """End the template and, with its process namespace, every box it made."""
        self._sock.close()  # it sees the end of its connection and ends, and bubblewrap, which waits for it, after it
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):  # it ended at this very moment
                self._process.kill()
            await self._process.wait()
