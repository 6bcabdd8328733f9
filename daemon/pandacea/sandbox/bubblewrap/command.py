"""The command line of one bubblewrap box, argument by argument."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.sandbox import guest_files, proc_masks
from pandacea.sandbox.backend import InstanceShape
from pandacea.sandbox.bubblewrap.zygote import tmpfs_mounts
from pandacea.sandbox.environments.build import Environment
from pandacea.sandbox.settings import GUEST_UID, SHM_BYTES

_BOX_PYTHON: Final = "/opt/pandacea/python"
_PROGRAM_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Mounts:
    """Host folders of a box. `points`: where the launcher mounts the box's tmpfs before bubblewrap moves them in."""

    points: Path
    program: Path
    """Copied to a tmpfs: /proc/self/mountinfo shows where in its file system a mounted folder lies, and so the node's state folder."""
    environment: Environment


def instance_command(
    mounts: Mounts, shape: InstanceShape, uid: int | None, start: str, outer: int, cgroup_files: Sequence[Path]
) -> list[str]:
    """Return the command of one box: enter the cgroup, make a mount namespace with capped tmpfs, then bubblewrap, then the guest.

    `uid`: what the guest becomes, as root; None: it runs as the node's own, in a user namespace.
    """
    root = uid is not None
    mount, binds = "", []
    for target, options in tmpfs_mounts(shape, uid):
        point = mounts.points.resolve() / Path(target).name
        mount += _tmpfs(point, options)
        binds += ["--bind", str(point), target]
    for source, target in proc_masks.mask_binds(str(_program_point(mounts))):
        binds += ["--ro-bind", source, target]
    line = _namespaces(root) + _capabilities(root, ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")) + _files(mounts) + binds
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--seccomp", str(outer)]
    return _launch(mounts, cgroup_files, mount, [*line, *_guest(mounts, start)], root)


def zygote_command(mounts: Mounts, start: str) -> list[str]:
    """Return the command of a template (root only): the same files and namespaces, and the right to make more of them."""
    line = _namespaces(True) + _capabilities(True, ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SYS_ADMIN")) + _files(mounts)
    for target in ("/workspace", "/dev/shm"):  # noqa: S108 - mount points of the boxes' own tmpfs
        line += ["--dir", target]
    line += ["--size", str(SHM_BYTES), "--tmpfs", "/tmp"]  # noqa: S108 - imports look for one; every box mounts its own over it
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    return _launch(mounts, (), "", [*line, *_guest(mounts, start)], True)


def _launch(mounts: Mounts, cgroup_files: Sequence[Path], mount: str, bubblewrap: Sequence[str], root: bool) -> list[str]:
    """Enter the control groups and a mount namespace, fill it, and become bubblewrap."""
    enter = "".join(f"echo $$ > {shlex.quote(str(path))} && " for path in cgroup_files)
    unshare = ["unshare", "--mount", "--propagation", "private"] + ([] if root else ["--user", "--map-root-user"])
    program = _program_point(mounts)
    mount += _tmpfs(program, f"mode=0755,size={_PROGRAM_BYTES}")
    mount += shlex.join(["cp", "-R", f"{mounts.program.resolve()}/.", str(program)]) + " && "
    return ["/bin/sh", "-c", f"{enter}exec {shlex.join([*unshare, '/bin/sh', '-c', f'{mount}exec {shlex.join(bubblewrap)}'])}"]


def _tmpfs(point: Path, options: str) -> str:
    return f"mount -t tmpfs -o nosuid,nodev,noexec,{options} tmpfs {shlex.quote(str(point))} && "


def _program_point(mounts: Mounts) -> Path:
    return mounts.points.resolve() / "program"


def _namespaces(root: bool) -> list[str]:
    line = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    line += ["--die-with-parent", "--as-pid-1", "--new-session", "--hostname", "sandbox", "--clearenv"]
    return line if root else [*line, "--unshare-user", "--uid", str(GUEST_UID), "--gid", str(GUEST_UID)]


def _capabilities(root: bool, kept: Sequence[str]) -> list[str]:
    """As root the guest changes to a uid that owns nothing by itself, which needs a few capabilities until it has."""
    line = ["--cap-drop", "ALL"]
    for capability in kept if root else ():
        line += ["--cap-add", capability]
    return line


def _files(mounts: Mounts) -> list[str]:
    environment = dict(guest_files.GUEST_ENVIRON)
    _, binds = _python(mounts.environment)
    if binds:
        environment["LD_LIBRARY_PATH"] = _BOX_PYTHON + "/lib"
    line = []
    for name, value in environment.items():
        line += ["--setenv", name, value]
    line += _system()
    for source, target in binds:
        line += ["--ro-bind", source, target]
    line += ["--ro-bind", str(mounts.environment.folder.resolve()), guest_files.ENVIRONMENT_FOLDER]
    line += ["--ro-bind", str(_program_point(mounts)), guest_files.GUEST_FOLDER]
    return [*line, "--proc", "/proc", "--dev", "/dev"]


def _guest(mounts: Mounts, start: str) -> list[str]:
    return ["--", _python(mounts.environment)[0], *guest_files.PYTHON_FLAGS, guest_files.START_CODE, start]


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
