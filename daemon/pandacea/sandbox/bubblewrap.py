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
from typing import Final

from pandacea.errors import Broken, Unavailable
from pandacea.flows.ports import SandboxIdentity
from pandacea.sandbox import masks, program
from pandacea.sandbox.boxes import BoxShape
from pandacea.sandbox.bubblewrap_box import BubblewrapBox, connect_guest
from pandacea.sandbox.bubblewrap_command import Mounts, command, template_command
from pandacea.sandbox.cgroups import BoxCgroup, Cgroups
from pandacea.sandbox.environments import Environment, read_environment
from pandacea.sandbox.inputs import open_for_guest
from pandacea.sandbox.namespaces import probe_namespaces
from pandacea.sandbox.opener import Opener
from pandacea.sandbox.runner import BoxSandbox
from pandacea.sandbox.seccomp.program import assemble
from pandacea.sandbox.settings import BubblewrapSettings
from pandacea.sandbox.template import Template
from pandacea.sandbox.uids import BoxUid, UidRange

NO_CGROUP: Final = (
    "no control group may be made here: memory is held by a watch twenty times a second, processes by RLIMIT_NPROC, "
    "processors not at all; for hard limits run as a service with Delegate=yes, or: systemd-run --scope -p Delegate=yes ..."
)
NO_UID: Final = (
    "boxes run as this user's own kernel uid: what the kernel counts by uid (pipe pages, epoll watches) is shared by all boxes and the "
    "node, so two scripts that run at once can signal through it; run the node as root, or use Docker, for a uid for each box"
)
_DESCRIPTORS: Final = 128
_SIGNALS: Final = 1024


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
        self._opener: Opener | None = None
        self._uids = UidRange(settings.uid_base) if os.geteuid() == 0 else None
        self.warnings: list[str] = []

    @property
    def uids(self) -> range | None:
        """The kernel's uids of scripts, or None where it is the node's own."""
        return None if self._uids is None else self._uids.numbers

    @property
    def leaves_no_access_time(self) -> bool:
        return True

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
        for name in ("workspace", "tmp", "shm", "program"):
            (settings.state_dir / "mount" / name).mkdir(parents=True, exist_ok=True)
        self._environment = read_environment(settings.environment)
        self._program = program.stage(settings.state_dir, settings.pool.limits.memory_bytes)
        (settings.state_dir / "outer.bpf").write_bytes(assemble(boot=True))
        await self._find_cgroups()
        if self._uids is not None:
            self._uids.check()
        else:
            self.warnings.append(NO_UID)
        self._opener = Opener()
        if not self._opener.read_only:
            raise Broken(
                f"files cannot be opened through a read-only mount here (Linux 5.12 or newer is needed): {self._opener.because}"
            )
        return SandboxIdentity("bubblewrap", self._environment.identity, self._program.digest, self._environment.packages)

    async def _find_cgroups(self) -> None:
        """Raises Broken where no control group may be made and the operator did not say that a watch is enough."""
        settings = self._settings
        if not settings.cgroups:
            self.warnings.append(NO_CGROUP)
            return
        self._cgroups = Cgroups.find(settings.instance)
        if self._cgroups is None:
            raise Broken(
                "no control group may be made here, so nothing hard holds a script's memory and processors. Run the node as a service "
                "with Delegate=yes, or from a shell: systemd-run --user --scope -p Delegate=yes pandacea run ...; or use Docker. To "
                "serve with a watch and resource limits instead (docs/security.md says what they leave), write privacy.cgroups: false"
            )
        await self._cgroups.sweep()

    def open_input(self, path: Path) -> int:
        """Open a file so that a script cannot write to it; see `open_for_guest`."""
        assert self._opener is not None, "open() comes first"
        return open_for_guest(path, self.uids, self._opener)

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
        uid, cgroup = self._uid_and_cgroup(shape)
        ours, theirs = connect_guest()
        outer = os.open(self._settings.state_dir / "outer.bpf", os.O_RDONLY)
        try:
            number = None if uid is None else uid.number
            start = self._start(shape, preload, theirs, number)
            line = command(self._mounts(), shape, number, start, outer, cgroup.enter if cgroup else ())
            process = await _spawn(line, (theirs.fileno(), outer))
        except BaseException:
            ours.close()
            if cgroup is not None:
                await cgroup.remove()
            if uid is not None:
                uid.release()
            raise
        finally:
            theirs.close()
            os.close(outer)
        box = BubblewrapBox(ours, bool(preload), cgroup, process, uid)
        if cgroup is None:
            box.watched_memory_bytes = shape.memory_bytes - shape.workspace_bytes - shape.tmp_bytes
        return await self._greeted(box)

    async def _fork(self, shape: BoxShape, preload: tuple[str, ...]) -> BubblewrapBox:
        """Make a box as a fork of the template, in fresh namespaces and control groups."""
        template = await self._ready_template(preload)
        uid, cgroup = self._uid_and_cgroup(shape)
        assert uid is not None, "only root has a template"
        ours, theirs = connect_guest()
        with theirs:
            box = BubblewrapBox(ours, True, cgroup, None, uid)
            self._boxes.add(box)
            try:
                template.fork(shape, uid.number, theirs, cgroup.enter if cgroup else (), self._rlimits(shape))
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
                start = self._start(None, preload, theirs, None)
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

    def _uid_and_cgroup(self, shape: BoxShape) -> tuple[BoxUid | None, BoxCgroup | None]:
        """What a new box has for itself, where this node can give it."""
        uid = None if self._uids is None else self._uids.claim()
        try:
            return uid, self._cgroups.create(uuid.uuid4().hex[:12], shape) if self._cgroups is not None else None
        except BaseException:
            if uid is not None:
                uid.release()
            raise

    def _mounts(self) -> Mounts:
        assert self._program is not None, "open() comes first"
        assert self._environment is not None, "open() comes first"
        return Mounts(self._settings.state_dir / "mount", self._program.folder, self._environment)

    def _rlimits(self, shape: BoxShape) -> dict[str, int]:
        """Where no control group counts what a box makes the kernel allocate, the number of things that it can make is small."""
        if self._cgroups is not None:
            return {"RLIMIT_CORE": 0}
        return {"RLIMIT_CORE": 0, "RLIMIT_NPROC": shape.pids, "RLIMIT_NOFILE": _DESCRIPTORS, "RLIMIT_SIGPENDING": _SIGNALS}

    def _start(self, shape: BoxShape | None, preload: tuple[str, ...], theirs: socket.socket, uid: int | None) -> str:
        return json.dumps(
            {
                "fd": theirs.fileno(),
                "uid": uid,
                "filter": program.BOX_FILTER,
                "environment": program.BOX_ENVIRONMENT,
                "preload": preload,
                "rlimits": {} if shape is None else self._rlimits(shape),
                "template": shape is None,
                "masks": masks.binds(program.BOX_PROGRAM),
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
        umask=0o022,  # what the launcher makes is read by the box's own user; the node's umask is stricter
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
