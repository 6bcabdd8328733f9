"""Boxes made with bubblewrap: no engine, no image, the host's Python and a folder of pinned packages."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path

from pandacea.errors import Broken, Unavailable
from pandacea.flows.ports import SandboxIdentity
from pandacea.sandbox import program
from pandacea.sandbox.boxes import BoxShape
from pandacea.sandbox.bubblewrap_box import BubblewrapBox
from pandacea.sandbox.bubblewrap_command import MASKED, Mounts, command, template_command
from pandacea.sandbox.cgroups import BoxCgroup, Cgroups
from pandacea.sandbox.environments import Environment, read_environment
from pandacea.sandbox.inputs import open_for_guest
from pandacea.sandbox.namespaces import probe_namespaces
from pandacea.sandbox.opener import ReadOnlyOpener
from pandacea.sandbox.runner import BoxSandbox
from pandacea.sandbox.seccomp.program import assemble
from pandacea.sandbox.settings import GUEST_UID, BubblewrapSettings
from pandacea.sandbox.template import Template


class BubblewrapMaker:
    """Makes bubblewrap boxes; see `BoxMaker`."""

    def __init__(self, settings: BubblewrapSettings) -> None:
        self._settings = settings
        self._boxes: set[BubblewrapBox] = set()
        self._cgroups: Cgroups | None = None
        self._program: program.GuestProgram | None = None
        self._environment: Environment | None = None
        self._template: Template | None = None
        self._template_lock = asyncio.Lock()
        self._opener: ReadOnlyOpener | None = None
        self.warnings: list[str] = []

    @property
    def guest_uid(self) -> int | None:
        """The kernel's uid of a script, or None where it is the node's own."""
        return GUEST_UID if os.geteuid() == 0 else None

    @property
    def warm_at_once(self) -> bool:
        return self._template is not None and self._template.alive

    async def open(self) -> SandboxIdentity:
        if shutil.which("bwrap") is None:
            raise Broken(
                "bubblewrap is not installed", remedy="install it (sudo apt-get install bubblewrap) or set privacy.sandbox: docker"
            )
        await probe_namespaces()
        settings = self._settings
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("workspace", "tmp", "shm"):
            (settings.state_dir / "mount" / name).mkdir(parents=True, exist_ok=True)
        self._environment = read_environment(settings.environment)
        self._program = program.stage(settings.state_dir)
        (settings.state_dir / "outer.bpf").write_bytes(assemble(boot=True))
        self._cgroups = Cgroups.find(settings.instance) if settings.cgroups else None
        if self._cgroups is not None:
            await self._cgroups.sweep()
        else:
            self.warnings.append(
                "no control group may be made here: memory is held by a watch twenty times a second, processes by RLIMIT_NPROC, "
                "processors not at all; for hard limits run as a service with Delegate=yes, or: systemd-run --scope -p Delegate=yes ..."
            )
        if self.guest_uid is None:
            self._opener = ReadOnlyOpener()
        return SandboxIdentity("bubblewrap", self._environment.identity, self._program.digest, self._environment.packages)

    def open_input(self, path: Path) -> int:
        """Open a file so that a script cannot write to it; see `open_for_guest`."""
        if self._opener is None:
            return open_for_guest(path, self.guest_uid)
        return open_for_guest(path, None, self._opener.open)

    async def make(self, shape: BoxShape, preload: tuple[str, ...], boot_seconds: float) -> BubblewrapBox:
        try:
            async with asyncio.timeout(boot_seconds):
                if preload and os.geteuid() == 0:
                    return await self._fork(shape, preload)
                return await self._launch(shape, preload)
        except TimeoutError as error:
            raise Unavailable(f"the guest was not ready within {boot_seconds:g} s") from error

    async def _launch(self, shape: BoxShape, preload: tuple[str, ...]) -> BubblewrapBox:
        """Make a box from nothing: a bubblewrap process of its own."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        cgroup = self._cgroup(shape)
        outer = os.open(self._settings.state_dir / "outer.bpf", os.O_RDONLY)
        try:
            line = command(self._mounts(), shape, self._start(shape, preload, theirs), outer, cgroup.enter if cgroup else ())
            process = await _spawn(line, (theirs.fileno(), outer))
        except BaseException:
            ours.close()
            if cgroup is not None:
                await cgroup.remove()
            raise
        finally:
            theirs.close()
            os.close(outer)
        box = BubblewrapBox(ours, bool(preload), cgroup, process)
        if cgroup is None:
            box.watched_memory_bytes = shape.memory_bytes - shape.workspace_bytes - shape.tmp_bytes
        return await self._greeted(box)

    async def _fork(self, shape: BoxShape, preload: tuple[str, ...]) -> BubblewrapBox:
        """Make a box as a fork of the template, in fresh namespaces and control groups."""
        template = await self._ready_template(preload)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        cgroup = self._cgroup(shape)
        with theirs:
            box = BubblewrapBox(ours, True, cgroup, None)
            self._boxes.add(box)
            try:
                template.fork(shape, theirs, cgroup.enter if cgroup else ())
            except BaseException:
                await self._discard(box)
                raise
        if cgroup is None:
            box.watched_memory_bytes = shape.memory_bytes - shape.workspace_bytes - shape.tmp_bytes
        return await self._greeted(box)

    async def _ready_template(self, preload: tuple[str, ...]) -> Template:
        async with self._template_lock:
            if self._template is not None and self._template.alive:
                return self._template
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                start = self._start(None, preload, theirs)
                process = await _spawn(template_command(self._mounts(), start), (theirs.fileno(),))
            template = Template(process, ours)
            try:
                await template.ready()
            except BaseException:
                await template.close()
                raise
            self._template = template
            return template

    async def _greeted(self, box: BubblewrapBox) -> BubblewrapBox:
        self._boxes = {one for one in self._boxes if not one.destroyed} | {box}
        try:
            await box.greet()
        except BaseException:
            await self._discard(box)
            raise
        return box

    def _cgroup(self, shape: BoxShape) -> BoxCgroup | None:
        return self._cgroups.create(uuid.uuid4().hex[:12], shape) if self._cgroups is not None else None

    def _mounts(self) -> Mounts:
        assert self._program is not None, "open() comes first"
        assert self._environment is not None, "open() comes first"
        return Mounts(self._settings.state_dir / "mount", self._program.folder, self._environment)

    def _start(self, shape: BoxShape | None, preload: tuple[str, ...], theirs: socket.socket) -> str:
        rlimits = {"RLIMIT_CORE": 0}
        if self._cgroups is None and shape is not None:
            rlimits["RLIMIT_NPROC"] = shape.pids
        return json.dumps(
            {
                "fd": theirs.fileno(),
                "uid": GUEST_UID,
                "filter": program.BOX_FILTER,
                "environment": program.BOX_ENVIRONMENT,
                "preload": preload,
                "rlimits": rlimits,
                "template": shape is None,
                "masked": [path for path in MASKED if Path(path).exists()],
            }
        )

    async def _discard(self, box: BubblewrapBox) -> None:
        await box.destroy()
        self._boxes.discard(box)

    async def close(self) -> None:
        for box in list(self._boxes):
            await self._discard(box)
        if self._template is not None:
            await self._template.close()
            self._template = None
        if self._opener is not None:
            self._opener.close()
            self._opener = None
        if self._cgroups is not None:
            await self._cgroups.sweep(corner=True)


async def _spawn(line: Sequence[str], descriptors: tuple[int, ...]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=descriptors,
        env=program.ENVIRONMENT | {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")},
        cwd="/",
    )


class BubblewrapSandbox(BoxSandbox):
    """One bubblewrap box for each job; needs no engine."""

    def __init__(self, settings: BubblewrapSettings) -> None:
        self.maker = BubblewrapMaker(settings)
        super().__init__(
            self.maker, settings.pool, self.maker.open_input, state_dir=settings.state_dir, self_tested=settings.self_test
        )
