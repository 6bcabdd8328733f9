"""Try to break the isolation of the sandbox it runs in; print a JSON list of [name, passed, detail].

It mentions syft, so that it is handed a table's descriptor.
"""

import ctypes
import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable

print(os.getuid())
given = sys.modules["__main__"].__dict__["params"]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
rows: list[list[object]] = []
_FILTER = {"0": "no filter", "1": "strict mode", "2": "filter in force"}


def report(name: str, passed: object, detail: object = "") -> None:
    """Add one result to the list that is printed."""
    rows.append([name, bool(passed), str(detail)[:300]])


def words(things: Iterable[object], nothing: str) -> str:
    """Return a list as words; `nothing` for an empty one."""
    return ", ".join(map(str, things)) or nothing


def refusal(number: int, *arguments: int) -> str | None:
    """Make a system call; return its errno's name, or None when it succeeded."""
    ctypes.set_errno(0)
    padded = [ctypes.c_long(argument) for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    return None if libc.syscall(ctypes.c_long(number), *padded) >= 0 else errno.errorcode[ctypes.get_errno()]


def ended(refused: OSError | None) -> str:
    """Return how an attempt ended, in words."""
    return f"refused ({refused.strerror})" if refused is not None else "nothing stopped it"


def stopped(call: Callable[..., object], *arguments: object) -> str | None:
    """Make a Python call; return its refusal, or None when it succeeded."""
    try:
        call(*arguments)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def network() -> None:
    families = [family for family in range(64) if stopped(socket.socket, family, socket.SOCK_STREAM) is None]
    families += [family for family in range(64) if stopped(socket.socket, family, socket.SOCK_DGRAM) is None]
    report("network: no socket of any family", not families, "opened: " + words(families, "") if families else "all 64 refused")
    names = {line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]}
    report(
        "network: no interface that leads out",
        not [n for n in names if n.startswith(("eth", "en", "wl", "docker", "veth", "br"))],
        words(sorted(names), "none at all"),
    )


def identity() -> None:
    own = os.getuid()
    report(
        "uid: not root, and nothing else",
        own != 0 and os.getresuid() == (own,) * 3 and os.getresgid() == (own,) * 3 and set(os.getgroups()) <= {own, 65534},
        f"uid {words(sorted(set(os.getresuid())), '')}, gid {words(sorted(set(os.getresgid())), '')}",
    )
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    report(
        "privileges: no capability, none to gain",
        all(int(status[n], 16) == 0 for n in ("CapInh", "CapPrm", "CapEff", "CapAmb")),
        "none" if int(status["CapEff"], 16) == 0 else f"capabilities {status['CapEff']}",
    )
    report("privileges: no_new_privs and a filter", status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", _privileges(status))


def _privileges(status: dict[str, str]) -> str:
    return f"no_new_privs {'set' if status['NoNewPrivs'] == '1' else 'NOT set'}, {_FILTER.get(status['Seccomp'], 'unknown filter')}"


def root_file_system() -> None:
    folders = ("/", "/usr", "/etc", "/opt", "/opt/pandacea/env", "/opt/pandacea/guest", "/dev", "/run", "/var")
    flags = os.O_CREAT | os.O_WRONLY
    written = [folder for folder in folders if os.path.isdir(folder) and stopped(os.open, folder + "/probe", flags) is None]
    report("root file system: read-only", not written, words(written, "no file could be made"))


def descriptors() -> None:
    """The table that the node hands over can be read, and not changed in any way."""
    number = sys.modules["__main__"].__dict__.get("pandacea_descriptors", {}).get("probe")
    if number is None:
        report("descriptors: the data's own", False, "none was handed over")
        return
    path = f"/proc/self/fd/{number}"
    before = os.fstat(number)
    tried = {
        "fchmod": stopped(os.fchmod, number, 0o777),
        "chmod": stopped(os.chmod, path, 0o777),
        "reopen for writing": stopped(os.open, path, os.O_RDWR),
        "reopen and truncate": stopped(os.open, path, os.O_WRONLY | os.O_TRUNC),
        "truncate": stopped(os.ftruncate, number, 0),
        "fsetxattr": stopped(os.setxattr, number, "user.probe", b"1"),
        "write": stopped(os.write, number, b"x"),
    }
    stopped(os.utime, number, (1, 1))
    if given["leaves_no_access_time"]:
        with open(path, "rb") as again:
            again.read()
    after = os.fstat(number)
    open_roads = [name for name, refused in tried.items() if refused is None]
    same = (before.st_mtime_ns, before.st_mode, before.st_size) == (after.st_mtime_ns, after.st_mode, after.st_size)
    report(
        "descriptors: the data's cannot be changed or reopened for writing",
        not open_roads and same,
        "went through: " + words(open_roads, "times or size changed") if open_roads or not same else f"{len(tried)} ways refused",
    )
    report(
        "descriptors: reading leaves no access time",
        before.st_atime_ns == after.st_atime_ns,
        "as before" if before.st_atime_ns == after.st_atime_ns else "moved",
    )
    report(
        "descriptors: the data's place is not shown",
        os.readlink(path) == "/" or not given["leaves_no_access_time"],
        f"it reads {os.readlink(path)}",
    )
    others = []
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != number and stopped(os.fstat, int(name)) is None:
            others.append(os.readlink(f"/proc/self/fd/{name}"))
    strange = [target for target in others if not target.startswith("socket:") and "/fd" not in target]
    report("descriptors: no other open file", not strange, words(strange, "none"))


def machine() -> None:
    """/proc shows the sandbox's own processes; files about the whole machine are empty, or the same fixed text in every sandbox."""
    shown = {}
    for name in os.listdir("/proc"):
        if name.isdigit() or name in given["kept"]:
            continue
        path = f"/proc/{name}"
        if os.path.isdir(path):
            found: object = os.listdir(path)
        elif name in given["neutral"]:
            found = open(path, "rb").read() != open(f"/opt/pandacea/guest/masks/{name}", "rb").read()
        else:
            try:
                found = open(path, "rb").read(16)
            except OSError:
                continue
        if found:
            shown[name] = found
    report("machine: its counters are hidden", not shown, words(sorted(shown), "none is shown"))
    listed = os.listdir("/sys") if os.path.isdir("/sys") else []
    report("machine: no /sys", not listed, words(sorted(listed), "nothing in it"))


def supervisor() -> None:
    paths = ("/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/fd", "/proc/1/root")
    opened = [path for path in paths if stopped(os.listdir if path.endswith(("fd", "root")) else open, path) is None]
    report(
        "supervisor: its memory and descriptors are closed",
        not opened,
        "opened: " + words(opened, "") if opened else f"{len(paths)} ways refused",
    )
    left = [path for path in ("/run/pandacea/guest", "/var/run/docker.sock") if os.path.exists(path)]
    report("guest socket: its name is gone, and no engine's is there", not left, words(left, "neither is there"))
    others = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    report("processes: nobody else's are seen", set(others) <= {1, os.getpid()}, f"seen: {words(others, 'none')}")


def calls() -> None:
    for purpose, numbers in given["denied"].items():
        through = {
            name: refused
            for name, number in numbers.items()
            if (refused := refusal(number, -1, -1, -1, -1)) not in ("EPERM", "ENOSYS")
        }
        report(
            f"system calls: {purpose}", not through, "NOT refused: " + words(through, "") if through else f"{len(numbers)} refused"
        )
    for name, number, arguments in given["conditions"]:
        refused = refusal(number, *arguments)
        report(f"system calls: {name}", refused is not None, "refused" if refused else "it went through")


def pretences() -> None:
    """Locks and file times are answered with success and do nothing."""
    path = "/opt/pandacea/guest/inner.bpf"
    first, second = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    import fcntl

    answers = [stopped(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB) for fd in (first, second)]
    report(
        "channels: a lock locks nothing",
        answers == [None, None],
        "two at once were granted" if answers == [None, None] else words(answers, ""),
    )
    shown = stopped(fcntl.fcntl, os.pipe()[0], fcntl.F_GETPIPE_SZ) is None
    report("channels: the number of pages a pipe got is not shown", not shown, "shown" if shown else "refused")
    before = os.stat(path).st_mtime_ns
    stopped(os.utime, path, (1, 1))
    report(
        "channels: a file's times do not move",
        os.stat(path).st_mtime_ns == before,
        "as before" if os.stat(path).st_mtime_ns == before else "changed",
    )


def processes() -> None:
    children: list[int] = []
    refused: OSError | None = None
    try:
        while len(children) < given["pids"] + 50:
            pid = os.fork()
            if pid == 0:
                libc.pause()
            children.append(pid)
    except OSError as error:
        refused = error
    for pid in children:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    report(
        "pids: the cap holds",
        refused is not None and len(children) < given["pids"],
        f"{len(children)} more started, {given['pids']} allowed in all; then {ended(refused)}",
    )


def disk() -> None:
    written, names = 0, [f"/workspace/probe-{part}" for part in range(3)]
    refused: OSError | None = None
    chunk = b"\1" * (1 << 20)
    for name in names:  # several, so that the limit on one file's size is not what stops it
        with open(name, "wb", buffering=0) as file:
            try:
                while file.tell() < given["workspace_bytes"] * 2 // 3:
                    written += file.write(chunk)
            except OSError as error:
                refused = error
    for name in names:
        os.unlink(name)
    passed = refused is not None and refused.errno == errno.ENOSPC and written <= given["workspace_bytes"]
    report(
        "disk: the size holds", passed, f"{written >> 20} MiB written of {given['workspace_bytes'] >> 20}; then {ended(refused)}"
    )
    count, refused = 0, None
    try:
        while count < given["workspace_inodes"] + 100:
            os.close(os.open(f"/workspace/{count}", os.O_CREAT | os.O_WRONLY))
            count += 1
    except OSError as error:
        refused = error
    for number in range(count):
        os.unlink(f"/workspace/{number}")
    report(
        "inodes: the number of files holds",
        refused is not None,
        f"{count} files made of {given['workspace_inodes']}; then {ended(refused)}",
    )


for probe in (network, identity, root_file_system, descriptors, machine, supervisor, calls, pretences, processes, disk):
    try:
        probe()
    except Exception as error:  # a probe that cannot run proves nothing
        report(probe.__name__, False, f"{type(error).__name__}: {error}")
print(json.dumps(rows))
