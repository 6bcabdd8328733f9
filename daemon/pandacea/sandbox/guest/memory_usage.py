"""Count the memory of a sandbox's processes, the kernel's own memory for them included: the limit where no control group can be made.

No file shows what the kernel allocates for a process's sockets, pipes, mappings and page tables, so each of these is charged with the
most that it can hold. A first sum is cheap and never too small; only when it passes the limit is everything counted.
"""

from __future__ import annotations

import functools
import os
import resource
import socket
from typing import Final

_MAPPING_BYTES: Final = 256  # struct vm_area_struct and its share of the tree
_MAX_MAPPINGS: Final = 65_530  # vm.max_map_count of nearly every kernel; charged to a process that hides its maps
_PIPE_BYTES: Final = 65_536  # no script can make one larger: F_SETPIPE_SZ is denied


def memory_exceeds(limit: int) -> bool:
    """Whether all processes but this one together hold more than `limit` bytes."""
    pids = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    if sum(map(_upper_bound, pids)) <= limit:
        return False
    total = 0
    sockets: set[str] = set()
    pipes: set[str] = set()
    for pid in pids:
        total += (
            _resident_bytes(pid)
            + _mapping_count(pid) * _MAPPING_BYTES
            + _collect_descriptors(pid, sockets, pipes) * _socket_bytes()
        )
        if total + len(sockets) * _socket_bytes() + len(pipes) * _PIPE_BYTES > limit:
            return True
    return False


@functools.cache
def _socket_bytes() -> int:
    """The most that one socket makes the kernel hold: its send buffer, which a script cannot enlarge, and one more packet of that size."""
    one, other = socket.socketpair()
    with one, other:
        return 2 * one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def _upper_bound(pid: str) -> int:
    """An upper bound of a process's memory: shared pages in full, and every place for a descriptor as a socket."""
    found = _read_status(pid)
    if not found:
        return 0  # it ended meanwhile
    kilobytes = found.get("VmRSS", 0) + found.get("VmPTE", 0)
    return kilobytes * 1024 + found.get("FDSize", 0) * _socket_bytes() + _MAX_MAPPINGS * _MAPPING_BYTES


def _read_status(pid: str) -> dict[str, int]:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().decode("ascii", "replace").splitlines()
    except OSError:
        return {}
    parts = [line.split() for line in lines]
    return {words[0][:-1]: int(words[1]) for words in parts if len(words) > 1 and words[0] in {"VmRSS:", "VmPTE:", "FDSize:"}}


def _resident_bytes(pid: str) -> int:
    """Bytes of pages and page tables. A shared page is divided among its processes; in full for a process that hides its maps."""
    found = _read_status(pid)
    pages = found.get("VmRSS", 0)
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    pages = int(line.split()[1])
    except OSError:
        pass  # it hides them, or ended meanwhile
    return (pages + found.get("VmPTE", 0)) * 1024


def _mapping_count(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            return file.read().count(b"\n")
    except PermissionError:
        return _MAX_MAPPINGS if "VmRSS" in _read_status(pid) else 0  # a process that ended and was not waited for has none
    except OSError:
        return 0  # it ended meanwhile


def _collect_descriptors(pid: str, sockets: set[str], pipes: set[str]) -> int:
    """Add a process's open sockets and pipes; return how many descriptors it hides, each of which may be a socket."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except PermissionError:
        found = _read_status(pid)
        if "VmRSS" not in found:
            return 0  # it is ending: its descriptors look hidden then
        return min(found.get("FDSize", 0), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    except OSError:
        return 0  # it ended meanwhile
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:"):
            sockets.add(target)
        elif target.startswith("pipe:"):
            pipes.add(target)
    return 0
