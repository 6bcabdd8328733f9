"""The bubblewrap backend: no engine and no image, but the host's Python and a folder of pinned packages."""

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
from pandacea.sandbox import guest_files, proc_masks
from pandacea.sandbox.backend import InstanceShape
from pandacea.sandbox.bubblewrap.cgroups import InstanceCgroup, NodeCgroup
from pandacea.sandbox.bubblewrap.command import Mounts, instance_command, zygote_command
from pandacea.sandbox.bubblewrap.instance import BubblewrapInstance, connect_guest
from pandacea.sandbox.bubblewrap.namespaces import probe_namespaces
from pandacea.sandbox.bubblewrap.zygote import Zygote
from pandacea.sandbox.environments.build import Environment, read_environment
from pandacea.sandbox.readonly_open import InputOpener, open_for_guest
from pandacea.sandbox.seccomp.bpf import assemble_filter
from pandacea.sandbox.service import SandboxService
from pandacea.sandbox.settings import BubblewrapSettings
from pandacea.sandbox.uids import InstanceUid, UidRange

NO_CGROUP: Final = (
    "no control group may be made here: memory is checked twenty times a second, processes are limited by RLIMIT_NPROC, "
    "processors not at all; for hard limits run as a service with Delegate=yes, or: systemd-run --scope -p Delegate=yes ..."
)
NO_UID: Final = (
    "sandboxes run as this user's own kernel uid: what the kernel counts by uid (pipe pages, epoll watches) is shared by all of them and "
    "the node, so two scripts that run at once can signal through it; run the node as root, or use Docker, for a uid for each sandbox"
)
_MAX_DESCRIPTORS: Final = 128
_MAX_PENDING_SIGNALS: Final = 1024


class BubblewrapBackend:
    """Creates bubblewrap instances; see `SandboxBackend`."""

    def __init__(self, settings: BubblewrapSettings) -> None:
        self._settings = settings
        self._instances: set[BubblewrapInstance] = set()
        self._cgroups: NodeCgroup | None = None
        self._guest: guest_files.GuestProgram | None = None
        self._environment: Environment | None = None
        self._zygote: Zygote | None = None
        self._zygote_lock = asyncio.Lock()
        self._opener: InputOpener | None = None
        self._uids = UidRange(settings.uid_base) if os.geteuid() == 0 else None
        self.warnings: list[str] = []

    @property
    def uids(self) -> range | None:
        return None if self._uids is None else self._uids.numbers

    @property
    def leaves_no_access_time(self) -> bool:
        return True

    @property
    def preload_is_free(self) -> bool:
        return self._zygote is not None and self._zygote.is_alive

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
        self._guest = guest_files.stage_guest(settings.state_dir, settings.pool.limits.memory_bytes)
        (settings.state_dir / "outer.bpf").write_bytes(assemble_filter(boot=True))
        await self._open_cgroups()
        if self._uids is not None:
            self._uids.require_unused()
        else:
            self.warnings.append(NO_UID)
        self._opener = InputOpener()
        if not self._opener.read_only:
            raise Broken(
                f"files cannot be opened through a read-only mount here (Linux 5.12 or newer is needed): {self._opener.reason}"
            )
        found = self._environment
        return SandboxIdentity("bubblewrap", found.identity, self._guest.digest, found.packages, found.modules)

    async def _open_cgroups(self) -> None:
        """Create the node's control group. Raises Broken where that is impossible and the configuration does not allow to go without."""
        settings = self._settings
        if not settings.cgroups:
            self.warnings.append(NO_CGROUP)
            return
        self._cgroups = NodeCgroup.find(settings.node_label)
        if self._cgroups is None:
            raise Broken(
                "no control group may be made here, so nothing enforces a script's memory and processors strictly. Run the node as a "
                "service with Delegate=yes, or from a shell: systemd-run --user --scope -p Delegate=yes pandacea run ...; or use Docker. "
                "To serve with polling and resource limits instead (docs/security.md says how they are weaker), set privacy.cgroups: false"
            )
        await self._cgroups.remove_groups()

    def open_input(self, path: Path) -> int:
        assert self._opener is not None, "open() comes first"
        return open_for_guest(path, self.uids, self._opener)

    async def create_instance(self, shape: InstanceShape, preload: tuple[str, ...], boot_seconds: float) -> BubblewrapInstance:
        try:
            async with asyncio.timeout(boot_seconds):
                if preload and os.geteuid() == 0:
                    return await self._fork(shape, preload)
                return await self._launch(shape, preload)
        except TimeoutError as error:
            raise Unavailable(f"the guest was not ready within {boot_seconds:g} s") from error

    async def _launch(self, shape: InstanceShape, preload: tuple[str, ...]) -> BubblewrapInstance:
        """Create an instance with a bubblewrap process of its own."""
        uid, cgroup = self._claim_uid_and_cgroup(shape)
        ours, theirs = connect_guest()
        outer = os.open(self._settings.state_dir / "outer.bpf", os.O_RDONLY)
        try:
            number = None if uid is None else uid.number
            start = self._start_parameters(shape, preload, theirs, number)
            line = instance_command(self._mounts(), shape, number, start, outer, cgroup.procs_files if cgroup else ())
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
        instance = BubblewrapInstance(ours, cgroup, process, uid)
        if cgroup is None:
            instance.watched_memory_bytes = shape.memory_bytes - shape.workspace_bytes - shape.tmp_bytes
        return await self._wait_ready(instance)

    async def _fork(self, shape: InstanceShape, preload: tuple[str, ...]) -> BubblewrapInstance:
        """Create an instance as a fork of the zygote, in new namespaces and control groups."""
        zygote = await self._ready_zygote(preload)
        uid, cgroup = self._claim_uid_and_cgroup(shape)
        assert uid is not None, "only root has a zygote"
        ours, theirs = connect_guest()
        with theirs:
            instance = BubblewrapInstance(ours, cgroup, None, uid)
            self._instances.add(instance)
            try:
                zygote.fork(shape, uid.number, theirs, cgroup.procs_files if cgroup else (), self._rlimits(shape))
            except BaseException:
                await self._discard(instance)
                raise
        if cgroup is None:
            instance.watched_memory_bytes = shape.memory_bytes - shape.workspace_bytes - shape.tmp_bytes
        return await self._wait_ready(instance)

    async def _ready_zygote(self, preload: tuple[str, ...]) -> Zygote:
        """Return the zygote, started again where it is gone."""
        async with self._zygote_lock:
            if self._zygote is not None and self._zygote.is_alive:
                return self._zygote
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                start = self._start_parameters(None, preload, theirs, None)
                process = await _spawn(zygote_command(self._mounts(), start), (theirs.fileno(),))
            zygote = Zygote(process, ours)
            try:
                await zygote.wait_ready()
            except BaseException:
                await zygote.close()
                raise
            self._zygote = zygote
            return zygote

    async def _wait_ready(self, instance: BubblewrapInstance) -> BubblewrapInstance:
        """Wait for an instance's hello; discard one that does not send it."""
        self._instances = {other for other in self._instances if not other.destroyed} | {instance}
        try:
            await instance.wait_ready()
        except BaseException:
            await self._discard(instance)
            raise
        return instance

    def _claim_uid_and_cgroup(self, shape: InstanceShape) -> tuple[InstanceUid | None, InstanceCgroup | None]:
        """Return a uid and a control group of a new instance's own, each None where this node cannot give one."""
        uid = None if self._uids is None else self._uids.claim()
        try:
            return uid, self._cgroups.create_group(uuid.uuid4().hex[:12], shape) if self._cgroups is not None else None
        except BaseException:
            if uid is not None:
                uid.release()
            raise

    def _mounts(self) -> Mounts:
        assert self._guest is not None, "open() comes first"
        assert self._environment is not None, "open() comes first"
        return Mounts(self._settings.state_dir / "mount", self._guest.folder, self._environment)

    def _rlimits(self, shape: InstanceShape) -> dict[str, int]:
        """Return resource limits: low ones where no control group counts what an instance makes the kernel allocate."""
        if self._cgroups is not None:
            return {"RLIMIT_CORE": 0}
        return {
            "RLIMIT_CORE": 0,
            "RLIMIT_NPROC": shape.pids,
            "RLIMIT_NOFILE": _MAX_DESCRIPTORS,
            "RLIMIT_SIGPENDING": _MAX_PENDING_SIGNALS,
        }

    def _start_parameters(
        self, shape: InstanceShape | None, preload: tuple[str, ...], theirs: socket.socket, uid: int | None
    ) -> str:
        return json.dumps(
            {
                "fd": theirs.fileno(),
                "uid": uid,
                "filter": guest_files.INNER_FILTER_FILE,
                "environment": guest_files.ENVIRONMENT_FOLDER,
                "preload": preload,
                "rlimits": {} if shape is None else self._rlimits(shape),
                "template": shape is None,
                "masks": proc_masks.mask_binds(guest_files.GUEST_FOLDER),
            }
        )

    async def _discard(self, instance: BubblewrapInstance) -> None:
        await instance.destroy()
        self._instances.discard(instance)

    async def close(self) -> None:
        for instance in list(self._instances):
            await self._discard(instance)
        if self._zygote is not None:
            await self._zygote.close()
            self._zygote = None
        if self._opener is not None:
            self._opener.close()
            self._opener = None
        if self._cgroups is not None:
            await self._cgroups.remove_groups(including_parent=True)


async def _spawn(line: Sequence[str], descriptors: tuple[int, ...]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=descriptors,
        umask=0o022,  # the instance's own user reads what the launcher creates; the node's umask is stricter
        env=guest_files.GUEST_ENVIRON | {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")},
        cwd="/",
    )


class BubblewrapSandbox(SandboxService):
    """The sandbox service on the bubblewrap backend."""

    def __init__(self, settings: BubblewrapSettings) -> None:
        super().__init__(BubblewrapBackend(settings), settings.pool, state_dir=settings.state_dir, self_tested=settings.self_test)
