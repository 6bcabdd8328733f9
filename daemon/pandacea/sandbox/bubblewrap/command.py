"""The command line of one bubblewrap instance, argument by argument."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.domain.limits import MIB, SHM_BYTES
from pandacea.sandbox import guest_files, proc_masks
from pandacea.sandbox.backend import SHM_DIR, TMP_DIR, WORKSPACE_DIR, InstanceShape
from pandacea.sandbox.bubblewrap.zygote import tmpfs_mounts
from pandacea.sandbox.environments.build import Environment
from pandacea.sandbox.settings import GUEST_UID

_PYTHON_FOLDER: Final = "/opt/pandacea/python"
"""Where an instance finds a Python that is not the system's own."""
_GUEST_BYTES: Final = 4 * MIB
"""Size of the tmpfs for the guest program."""
_CAPABILITIES: Final = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
"""What a guest started as root needs until it has changed to its own uid."""


@dataclass(frozen=True, slots=True)
class Mounts:
    """Host folders of an instance. `points`: where the launcher mounts the instance's tmpfs before bubblewrap moves them in."""

    points: Path
    program: Path
    """The staged guest program. Copied to a tmpfs, because /proc/self/mountinfo shows where in its file system a mounted folder lies,
    and so would show the node's state folder."""
    environment: Environment


def instance_command(
    mounts: Mounts, shape: InstanceShape, uid: int | None, start: str, outer: int, cgroup_files: Sequence[Path]
) -> list[str]:
    """Return the command of one instance: enter the cgroup, mount the tmpfs in a mount namespace, run bubblewrap, run the guest.

    `uid`: what the guest changes to, as root; None: it runs as the node's own, in a user namespace. `start`: the guest's parameters
    (JSON). `outer`: descriptor of the outer seccomp filter.
    """
    root = uid is not None
    mount, binds = "", []
    for target, options in tmpfs_mounts(shape, uid):
        point = mounts.points.resolve() / Path(target).name
        mount += _tmpfs(point, options)
        binds += ["--bind", str(point), target]
    for source, target in proc_masks.mask_binds(str(_program_point(mounts))):
        binds += ["--ro-bind", source, target]
    line = _namespaces(root) + _capabilities(root, _CAPABILITIES) + _files(mounts) + binds
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--seccomp", str(outer)]
    return _launch(mounts, cgroup_files, mount, [*line, *_guest(mounts, start)], root)


def zygote_command(mounts: Mounts, start: str) -> list[str]:
    """Return the command of a zygote (root only): the same files and namespaces, and the right to create more namespaces."""
    line = _namespaces(True) + _capabilities(True, (*_CAPABILITIES, "CAP_SYS_ADMIN")) + _files(mounts)
    for target in (WORKSPACE_DIR, SHM_DIR):  # each instance mounts its own tmpfs there
        line += ["--dir", target]
    line += ["--size", str(SHM_BYTES), "--tmpfs", TMP_DIR]  # imports look for one; each instance mounts its own over it
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    return _launch(mounts, (), "", [*line, *_guest(mounts, start)], True)


def _launch(mounts: Mounts, cgroup_files: Sequence[Path], mount: str, bubblewrap: Sequence[str], root: bool) -> list[str]:
    """Return the command that enters the control groups and a new mount namespace, mounts `mount` there and executes bubblewrap."""
    enter = "".join(f"echo $$ > {shlex.quote(str(path))} && " for path in cgroup_files)
    unshare = ["unshare", "--mount", "--propagation", "private"] + ([] if root else ["--user", "--map-root-user"])
    program = _program_point(mounts)
    mount += _tmpfs(program, f"mode=0755,size={_GUEST_BYTES}")
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
    """Return the options that drop all capabilities, but as root those that the guest needs to change to a uid that owns nothing."""
    line = ["--cap-drop", "ALL"]
    for capability in kept if root else ():
        line += ["--cap-add", capability]
    return line


def _files(mounts: Mounts) -> list[str]:
    environment = dict(guest_files.GUEST_ENVIRON)
    _, binds = _python(mounts.environment)
    if binds:
        environment["LD_LIBRARY_PATH"] = _PYTHON_FOLDER + "/lib"
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
    """Return where an instance finds the interpreter that the environment was made with, and the mounts that this needs."""
    if environment.base_prefix == "/usr":
        return environment.interpreter, []
    name = Path(environment.interpreter).name
    return f"{_PYTHON_FOLDER}/bin/{name}", [(environment.base_prefix, _PYTHON_FOLDER)]


def _system() -> list[str]:
    """Return the mounts of the host's libraries, read-only, and of the few files in /etc that a program expects; nothing else."""
    line = ["--ro-bind", "/usr", "/usr"]
    for name in ("/opt", "/opt/pandacea", "/etc", "/etc/ssl"):  # parents that a bind makes by itself are root's alone
        line += ["--perms", "0755", "--dir", name]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            line += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            line += ["--ro-bind", str(path), str(path)]
    for name in ("/usr/local", "/usr/src", "/usr/games"):
        if Path(name).is_dir():
            line += ["--tmpfs", name, "--remount-ro", name]
    for name in ("/etc/ld.so.cache", "/etc/ssl/certs", "/etc/alternatives"):
        if Path(name).exists():
            line += ["--ro-bind", name, name]
    return line
