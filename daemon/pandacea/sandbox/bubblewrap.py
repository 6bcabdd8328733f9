"""Boxes made with bubblewrap: no engine, no image, the host's Python and a folder of pinned packages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import uuid
from typing import Final

from pandacea.errors import Broken, Unavailable
from pandacea.flows.ports import SandboxIdentity
from pandacea.sandbox import program
from pandacea.sandbox.boxes import BoxShape
from pandacea.sandbox.bubblewrap_command import Mounts, command
from pandacea.sandbox.cgroups import BoxCgroup, Cgroups
from pandacea.sandbox.environments import Environment, read_environment
from pandacea.sandbox.hello import greet
from pandacea.sandbox.seccomp.program import assemble
from pandacea.sandbox.settings import GUEST_UID, BubblewrapSettings

_STDERR_BYTES: Final = 4096
_END_SECONDS: Final = 10.0


class BubblewrapBox:
    """One bubblewrap process tree: its PID 1 is our guest."""

    watched_memory_bytes: int

    def __init__(self, process: asyncio.subprocess.Process, sock: socket.socket, warm: bool, cgroup: BoxCgroup | None) -> None:
        self._process, self.sock, self.warm, self._cgroup = process, sock, warm, cgroup
        self.out_of_memory = asyncio.Event()
        self.watched_memory_bytes = 0
        self.first_process: int | None = None
        self._destroyed = False

    def watch_memory(self) -> None:
        """Have the kernel's reports of killed processes set `out_of_memory`."""
        if self._cgroup is not None:
            self._cgroup.watch(self.out_of_memory.set)

    async def host_failure(self) -> str | None:
        """Nothing but the script or our own `destroy` ends these processes."""
        return None

    async def destroy(self) -> None:
        """Kill PID 1 of the box, with which the kernel ends everything in its process namespace, and wait for it."""
        if self._destroyed:
            return
        self._destroyed = True
        self.sock.close()
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            if self.first_process is not None:
                os.kill(self.first_process, signal.SIGKILL)
            else:
                self._process.kill()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._cgroup is not None:
            await self._cgroup.remove()


class BubblewrapMaker:
    """Makes bubblewrap boxes; see `BoxMaker`."""

    def __init__(self, settings: BubblewrapSettings) -> None:
        self._settings = settings
        self._boxes: set[BubblewrapBox] = set()
        self._cgroups: Cgroups | None = None
        self._program: program.GuestProgram | None = None
        self._environment: Environment | None = None

    @property
    def guest_uid(self) -> int | None:
        """The kernel's uid of a script, or None where it is the node's own and files must be opened read-only by other means."""
        return GUEST_UID if os.geteuid() == 0 else None

    async def open(self) -> SandboxIdentity:
        if shutil.which("bwrap") is None:
            raise Broken("bubblewrap is not installed; install it (apt-get install bubblewrap) or set privacy.sandbox: docker")
        settings = self._settings
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("workspace", "tmp", "shm"):
            (settings.state_dir / "mount" / name).mkdir(parents=True, exist_ok=True)
        self._environment = read_environment(settings.environment)
        self._program = program.stage(settings.state_dir)
        (settings.state_dir / "outer.bpf").write_bytes(assemble(boot=True))
        if settings.cgroups:
            self._cgroups = Cgroups.find(settings.instance)
            if self._cgroups is not None:
                await self._cgroups.sweep()
        return SandboxIdentity("bubblewrap", self._environment.identity, self._program.digest)

    async def make(self, shape: BoxShape, preload: tuple[str, ...], boot_seconds: float) -> BubblewrapBox:
        assert self._program is not None
        assert self._environment is not None
        cgroup = self._cgroups.create(uuid.uuid4().hex[:12], shape) if self._cgroups is not None else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        info_read, info_write = os.pipe()
        outer = os.open(self._settings.state_dir / "outer.bpf", os.O_RDONLY)
        try:
            start = self._start(shape, preload, theirs.fileno())
            mounts = Mounts(self._settings.state_dir / "mount", self._program.folder, self._environment)
            line = command(mounts, shape, start, outer, info_write, cgroup.enter if cgroup else ())
            process = await asyncio.create_subprocess_exec(
                *line,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(), info_write, outer),
                env=program.ENVIRONMENT | {"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
                cwd="/",
            )
        except BaseException:
            ours.close()
            os.close(info_read)
            if cgroup is not None:
                await cgroup.remove()
            raise
        finally:
            theirs.close()
            os.close(info_write)
            os.close(outer)
        ours.setblocking(False)
        box = BubblewrapBox(process, ours, bool(preload), cgroup)
        self._boxes.add(box)
        try:
            async with asyncio.timeout(boot_seconds):
                await self._boot(box, process, info_read)
        except TimeoutError as error:
            await self._discard(box)
            raise Unavailable(f"the guest was not ready within {boot_seconds:g} s") from error
        except BaseException:
            await self._discard(box)
            raise
        if cgroup is None:
            box.watched_memory_bytes = shape.memory_bytes - shape.workspace_bytes - shape.tmp_bytes
        self._boxes = {one for one in self._boxes if not one._destroyed}  # noqa: SLF001 - forget those that are gone
        return box

    def _start(self, shape: BoxShape, preload: tuple[str, ...], descriptor: int) -> str:
        rlimits = {"RLIMIT_CORE": 0}
        if self._cgroups is None:
            rlimits["RLIMIT_NPROC"] = shape.pids
        return json.dumps(
            {
                "fd": descriptor,
                "uid": GUEST_UID,
                "filter": program.BOX_FILTER,
                "environment": program.BOX_ENVIRONMENT,
                "preload": preload,
                "rlimits": rlimits,
            }
        )

    async def _boot(self, box: BubblewrapBox, process: asyncio.subprocess.Process, info_read: int) -> None:
        loop = asyncio.get_running_loop()
        os.set_blocking(info_read, False)
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(info_read, "rb", 0))
        try:
            info = await reader.read()
        finally:
            transport.close()
        if info:
            box.first_process = int(json.loads(info)["child-pid"])
        box.watch_memory()
        try:
            await greet(box.sock)
        except Unavailable as error:
            words = b""
            if process.stderr is not None:
                process.kill()
                words = (await process.stderr.read())[-_STDERR_BYTES:]
            said = words.decode("utf-8", "replace").strip()
            raise Unavailable(f"{error.detail}; bubblewrap said: {said or 'nothing'}") from error

    async def _discard(self, box: BubblewrapBox) -> None:
        await box.destroy()
        self._boxes.discard(box)

    async def close(self) -> None:
        for box in list(self._boxes):
            await self._discard(box)
        if self._cgroups is not None:
            await self._cgroups.sweep()
