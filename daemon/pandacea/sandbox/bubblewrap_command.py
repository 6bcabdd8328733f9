"""The command line of one bubblewrap box, argument by argument."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.sandbox import program
from pandacea.sandbox.boxes import BoxShape
from pandacea.sandbox.environments import Environment
from pandacea.sandbox.settings import GUEST_UID, SHM_BYTES

_SHM_INODES: Final = 64
_BOX_PYTHON: Final = "/opt/pandacea/python"
_MASKED: Final = (
    "/proc/keys",
    "/proc/key-users",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/latency_stats",
)


@dataclass(frozen=True, slots=True)
class Mounts:
    """Host folders of a box. `points`: where the launcher mounts the box's tmpfs before bubblewrap moves them in."""

    points: Path
    program: Path
    environment: Environment


def command(mounts: Mounts, shape: BoxShape, start: str, outer: int, info: int, cgroup_files: Sequence[Path]) -> list[str]:
    """Return the full command: enter the cgroup, make a mount namespace with capped tmpfs, then bubblewrap, then the guest."""
    root = os.geteuid() == 0
    enter = "".join(f"echo $$ > {shlex.quote(str(path))} && " for path in cgroup_files)
    unshare = ["unshare", "--mount", "--propagation", "private"] + ([] if root else ["--user", "--map-root-user"])
    owner = f"uid={GUEST_UID},gid={GUEST_UID}," if root else ""
    points = shlex.quote(str(mounts.points))
    sizes = (
        ("workspace", f"mode=0700,{owner}size={shape.workspace_bytes},nr_inodes={shape.workspace_inodes}"),
        ("tmp", f"mode=0700,{owner}size={shape.tmp_bytes},nr_inodes={shape.workspace_inodes}"),
        ("shm", f"mode=0700,{owner}size={SHM_BYTES},nr_inodes={_SHM_INODES}"),
    )
    mount = "".join(f"mount -t tmpfs -o nosuid,nodev,noexec,{options} tmpfs {points}/{name} && " for name, options in sizes)
    inner = mount + "exec " + shlex.join(_bubblewrap(mounts, start, outer, info, root))
    return ["/bin/sh", "-c", f"{enter}exec {shlex.join([*unshare, '/bin/sh', '-c', inner])}"]


def _bubblewrap(mounts: Mounts, start: str, outer: int, info: int, root: bool) -> list[str]:
    line = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    line += ["--die-with-parent", "--as-pid-1", "--new-session", "--hostname", "sandbox", "--clearenv"]
    if root:
        # A uid that owns nothing here: the guest changes to it by itself, which needs these until it has.
        line += ["--cap-drop", "ALL"]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            line += ["--cap-add", capability]
    else:
        line += ["--unshare-user", "--uid", str(GUEST_UID), "--gid", str(GUEST_UID), "--cap-drop", "ALL"]
    environment = dict(program.ENVIRONMENT)
    python, binds = _python(mounts.environment)
    if binds:
        environment["LD_LIBRARY_PATH"] = _BOX_PYTHON + "/lib"
    for name, value in environment.items():
        line += ["--setenv", name, value]
    line += _system()
    for source, target in binds:
        line += ["--ro-bind", source, target]
    line += ["--ro-bind", str(mounts.environment.folder.resolve()), program.BOX_ENVIRONMENT]
    line += ["--ro-bind", str(mounts.program.resolve()), program.BOX_PROGRAM]
    line += ["--proc", "/proc", "--dev", "/dev"]
    for name, target in (("workspace", "/workspace"), ("tmp", "/tmp"), ("shm", "/dev/shm")):  # noqa: S108 - the box's own
        line += ["--bind", str(mounts.points.resolve() / name), target]
    for path in _MASKED:
        if Path(path).exists():
            line += ["--ro-bind", "/dev/null", path]
    line += ["--remount-ro", "/dev", "--remount-ro", "/"]
    line += ["--chdir", "/", "--seccomp", str(outer), "--info-fd", str(info)]
    return [*line, "--", python, *program.FLAGS, program.START, start]


def _python(environment: Environment) -> tuple[str, list[tuple[str, str]]]:
    """Where the box finds the interpreter the environment was made with, and what must be bound for it."""
    if environment.base_prefix == "/usr":
        return environment.interpreter, []
    name = Path(environment.interpreter).name
    return f"{_BOX_PYTHON}/bin/{name}", [(environment.base_prefix, _BOX_PYTHON)]


def _system() -> list[str]:
    """The host's libraries, read-only, and the few files in /etc a program expects; nothing else of the host."""
    line = ["--ro-bind", "/usr", "/usr"]
    for name in ("/opt", "/opt/pandacea", "/etc", "/etc/ssl"):  # parents that a bind makes by itself are root's alone
        line += ["--perms", "0755", "--dir", name]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            line += ["--symlink", os.readlink(path), str(path)]  # noqa: PTH115 - the link's text, not its target
        elif path.is_dir():
            line += ["--ro-bind", str(path), str(path)]
    for name in ("/usr/local", "/usr/src", "/usr/games"):
        if Path(name).is_dir():
            line += ["--tmpfs", name, "--remount-ro", name]
    for name in ("/etc/ld.so.cache", "/etc/ssl/certs", "/etc/alternatives"):
        if Path(name).exists():
            line += ["--ro-bind", name, name]
    return line
