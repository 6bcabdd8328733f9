"""Control groups of bubblewrap instances, version 1 and 2; where none may be made, the caller uses resource limits instead."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pandacea.errors import Broken
from pandacea.sandbox.backend import InstanceShape
from pandacea.tasks import log_task_failure

_ROOT: Final = Path("/sys/fs/cgroup")
_CONTROLLERS: Final = ("memory", "pids", "cpu")
_WANTED: Final = " ".join(f"+{name}" for name in _CONTROLLERS)
_SUBTREE_CONTROL: Final = "cgroup.subtree_control"
_LEAF: Final = "pandacea-node"
"""The group that the node moves itself into, beside those of its instances (version 2)."""
_PERIOD_MICROSECONDS: Final = 100_000
_POLL_SECONDS: Final = 0.02
_MAX_REMOVE_TRIES: Final = 250
"""Attempts to remove a group, `_POLL_SECONDS` apart: killed processes are counted in it for a moment."""


class InstanceCgroup:
    """The control groups of one instance: one folder for each hierarchy (version 1) or one for all (version 2)."""

    def __init__(self, folders: dict[str, Path], unified: bool) -> None:
        self._folders, self._unified = folders, unified
        self._eventfd = -1
        self._oom_task: asyncio.Task[None] | None = None

    @property
    def procs_files(self) -> tuple[Path, ...]:
        """Files to which a process writes its own pid to enter the groups."""
        return tuple(dict.fromkeys(folder / "cgroup.procs" for folder in self._folders.values()))

    def watch_oom(self, on_kill: Callable[[], None]) -> None:
        """Call `on_kill` when the kernel kills a process of the group for memory, until `remove`."""
        if self._unified:
            self._oom_task = asyncio.create_task(self._poll_oom(on_kill), name="cgroup-poll")
            self._oom_task.add_done_callback(log_task_failure)
            return
        folder = self._folders["memory"]
        self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(folder / "memory.oom_control", os.O_RDONLY)
        try:
            (folder / "cgroup.event_control").write_text(f"{self._eventfd} {control}", encoding="ascii")
        finally:
            os.close(control)
        asyncio.get_running_loop().add_reader(self._eventfd, self._on_oom_event, on_kill)

    def _on_oom_event(self, on_kill: Callable[[], None]) -> None:
        with contextlib.suppress(BlockingIOError):  # another callback read it
            os.eventfd_read(self._eventfd)
            on_kill()  # while the group exists the kernel signals nothing else, and `remove` stops the watch first

    async def _poll_oom(self, on_kill: Callable[[], None]) -> None:
        while self.count_oom_kills() == 0:
            await asyncio.sleep(_POLL_SECONDS)
        on_kill()

    def count_oom_kills(self) -> int:
        """Return the number of processes of the group that were killed for memory so far."""
        text = self._read("memory", "memory.events" if self._unified else "memory.oom_control")
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        return 0

    def _read(self, controller: str, name: str) -> str:
        try:
            return (self._folders[controller] / name).read_text(encoding="ascii")
        except FileNotFoundError:
            return ""  # the group was removed meanwhile

    async def remove(self) -> None:
        """Kill the processes that are left in the groups and remove the folders; idempotent."""
        if self._oom_task is not None:
            self._oom_task.cancel()
        if self._eventfd >= 0:
            asyncio.get_running_loop().remove_reader(self._eventfd)
            os.close(self._eventfd)
            self._eventfd = -1
        for folder in dict.fromkeys(self._folders.values()):
            await _remove_group(folder)


class NodeCgroup:
    """This node's own group, the parent of those of its instances; one in each hierarchy (version 1)."""

    def __init__(self, parents: dict[str, Path], unified: bool) -> None:
        self._parents, self._unified = parents, unified

    @classmethod
    def find(cls, instance: str, root: Path = _ROOT, own: Path = Path("/proc/self/cgroup")) -> NodeCgroup | None:
        """Create the node's group and return it; None where this process may not (a plain user without delegation)."""
        unified = (root / "cgroup.controllers").exists()
        parents = {}
        for controller, path in _own_groups(own.read_text(encoding="utf-8"), unified).items():
            group = (root if unified else root / controller) / path.lstrip("/")
            parents[controller] = (group.parent if group.name == _LEAF else group) / f"pandacea-{instance}"
        if set(parents) != set(_CONTROLLERS):
            return None
        try:
            if unified:
                _delegate_controllers(parents["memory"].parent)
            for parent in dict.fromkeys(parents.values()):
                parent.mkdir(exist_ok=True)
            if unified:
                (parents["memory"] / _SUBTREE_CONTROL).write_text(_WANTED, encoding="ascii")
        except OSError:
            return None
        return cls(parents, unified)

    @classmethod
    def is_available(cls) -> bool:
        """Whether this process may create control groups here; the group of the trial is removed again."""
        found = cls.find(f"trial-{os.getpid()}")
        if found is None:
            return False
        found.remove_empty()
        return True

    def remove_empty(self) -> None:
        """Remove the node's group, in which no instance was created."""
        for parent in self._folders:
            parent.rmdir()

    @property
    def _folders(self) -> list[Path]:
        """The group in each hierarchy, once."""
        return list(dict.fromkeys(self._parents.values()))

    def create_group(self, name: str, shape: InstanceShape) -> InstanceCgroup:
        """Create a group with an instance's limits. Raises Broken when the kernel refuses one of them."""
        folders = {controller: parent / name for controller, parent in self._parents.items()}
        try:
            for folder in dict.fromkeys(folders.values()):
                folder.mkdir(exist_ok=True)
            for controller, file, value in self._limit_values(shape):
                path = folders[controller] / file
                if path.exists():
                    path.write_text(value, encoding="ascii")
        except OSError as error:
            raise Broken(
                f"cannot create the control group {name}: {error}; see docs/sandbox.md, or set privacy.cgroups: false"
            ) from error
        return InstanceCgroup(folders, self._unified)

    def _limit_values(self, shape: InstanceShape) -> list[tuple[str, str, str]]:
        """Return controller, file and content for each limit."""
        memory, quota = str(shape.memory_bytes), int(shape.cpus * _PERIOD_MICROSECONDS)
        if self._unified:
            return [
                ("memory", "memory.max", memory),
                ("memory", "memory.swap.max", "0"),
                ("memory", "memory.oom.group", "1"),
                ("pids", "pids.max", str(shape.pids)),
                ("cpu", "cpu.max", f"{quota} {_PERIOD_MICROSECONDS}"),
            ]
        return [
            ("memory", "memory.limit_in_bytes", memory),
            ("memory", "memory.memsw.limit_in_bytes", memory),
            ("pids", "pids.max", str(shape.pids)),
            ("cpu", "cpu.cfs_period_us", str(_PERIOD_MICROSECONDS)),
            ("cpu", "cpu.cfs_quota_us", str(quota)),
        ]

    async def remove_groups(self, *, including_parent: bool = False) -> None:
        """Kill the processes of all instances and remove their groups, and with `including_parent` the node's own."""
        for parent in self._folders:
            if parent.exists():
                for child in list(parent.iterdir()):
                    if child.is_dir():
                        await _remove_group(child)
                if including_parent:
                    await _remove_group(parent)


def _delegate_controllers(group: Path) -> None:
    """Delegate the controllers to a group's children (version 2). Raises OSError when this process may not."""
    try:
        (group / _SUBTREE_CONTROL).write_text(_WANTED, encoding="ascii")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A group with processes cannot delegate: they move into a leaf of it, if all are this node's own (as under Delegate=yes).
        pids = {int(pid) for pid in (group / "cgroup.procs").read_text(encoding="ascii").split()}
        if not pids <= _own_process_tree():
            raise
        (group / _LEAF).mkdir(exist_ok=True)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                (group / _LEAF / "cgroup.procs").write_text(str(pid), encoding="ascii")
        (group / _SUBTREE_CONTROL).write_text(_WANTED, encoding="ascii")


def _own_process_tree() -> set[int]:
    """Return this process and its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                parents[int(entry.name)] = int((entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    tree, size = {os.getpid()}, 0
    while size < len(tree):
        size = len(tree)
        tree |= {pid for pid, parent in parents.items() if parent in tree}
    return tree


def _own_groups(text: str, unified: bool) -> dict[str, str]:
    """Return this process's group for each controller, from the text of /proc/self/cgroup."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if unified and not controllers:
            return dict.fromkeys(_CONTROLLERS, path)
        for controller in controllers.split(","):
            if controller in _CONTROLLERS:
                found[controller] = path
    return found


async def _remove_group(folder: Path) -> None:
    for _ in range(_MAX_REMOVE_TRIES):
        try:
            processes = (folder / "cgroup.procs").read_text(encoding="ascii").split()
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):  # it ended between the read and the kill
                    os.kill(int(pid), signal.SIGKILL)
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            await asyncio.sleep(_POLL_SECONDS)  # killed processes are still counted for a moment
        else:
            return
    raise Broken(f"the control group {folder} does not become empty: a process in it cannot be killed; restart the machine")
