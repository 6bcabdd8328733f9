"""The zygote: one process that has imported everything and forks itself into new instances on request (bubblewrap as root)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pandacea.domain.limits import SHM_BYTES
from pandacea.errors import Unavailable
from pandacea.sandbox.backend import SHM_DIR, TMP_DIR, WORKSPACE_DIR, InstanceShape
from pandacea.sandbox.guest import packets
from pandacea.sandbox.session import receive_hello

_SHM_INODES: Final = 64
_END_SECONDS: Final = 5.0


def tmpfs_mounts(shape: InstanceShape, owner: int | None) -> list[tuple[str, str]]:
    """Return target and options (tmpfs(5)) of the only places an instance may write to; `owner` None: the uid that mounts them."""
    mode = "mode=0700" if owner is None else f"mode=0700,uid={owner},gid={owner}"
    return [
        (WORKSPACE_DIR, f"{mode},size={shape.workspace_bytes},nr_inodes={shape.workspace_inodes}"),
        (TMP_DIR, f"{mode},size={shape.tmp_bytes},nr_inodes={shape.workspace_inodes}"),
        (SHM_DIR, f"{mode},size={SHM_BYTES},nr_inodes={_SHM_INODES}"),
    ]


class Zygote:
    """The connection to the zygote process, which never sees a job: every instance is a fork with namespaces and limits of its own."""

    def __init__(self, process: asyncio.subprocess.Process, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._process, self._sock = process, sock

    async def wait_ready(self) -> None:
        """Wait until everything is imported. Raises Unavailable."""
        await receive_hello(self._sock, as_root=True)

    @property
    def is_alive(self) -> bool:
        """Whether it can still fork instances."""
        return self._process.returncode is None

    def fork(
        self, shape: InstanceShape, uid: int, theirs: socket.socket, cgroup_files: Sequence[Path], rlimits: dict[str, int]
    ) -> None:
        """Request a fork whose guest will send its hello on `theirs`. Raises Unavailable when the zygote is gone."""
        files = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in cgroup_files]
        request = json.dumps({"uid": uid, "mounts": tmpfs_mounts(shape, uid), "rlimits": rlimits})
        try:
            socket.send_fds(self._sock, (packets.FORK, request.encode()), (theirs.fileno(), *files))
        except OSError as error:
            raise Unavailable(f"the zygote process is gone: {error}") from error
        finally:
            for descriptor in files:
                os.close(descriptor)

    async def close(self) -> None:
        """End the zygote and, with its process namespace, every instance that it forked."""
        self._sock.close()  # the zygote sees the end of its connection and exits, and bubblewrap, which waits for it, after it
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):  # it ended at this very moment
                self._process.kill()
            await self._process.wait()
