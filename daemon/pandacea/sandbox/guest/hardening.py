"""Drop privileges, close the process to others of its uid, and install the seccomp filter: system calls that Python does not offer."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_MODE_FILTER: Final = 2
_INSTRUCTION_BYTES: Final = 8
_CAPABILITIES: Final = 64
_CAPABILITY_VERSION_3: Final = 0x20080522  # capget(2)

_libc = ctypes.CDLL(None, use_errno=True)


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def prctl(option: int, second: int = 0, third: int = 0) -> None:
    """Call prctl(2). Raises OSError."""
    unsigned = ctypes.c_ulong
    if _libc.prctl(ctypes.c_int(option), unsigned(second), unsigned(third), unsigned(0), unsigned(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def drop_to_uid(uid: int) -> None:
    """Become `uid` for good: empty capability bounding set, no groups, no capability in any set."""
    for capability in range(_CAPABILITIES):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:  # this kernel has no capability of that number
                raise
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of uid clears it


def set_dumpable(on: bool) -> None:
    """Set PR_SET_DUMPABLE. Off: no process of the same uid may reach this one's memory, descriptors or environment (/proc, ptrace)."""
    prctl(PR_SET_DUMPABLE, int(on))


def forbid_new_privileges() -> None:
    """Set PR_SET_NO_NEW_PRIVS: no set-uid program, file capability or security module may raise what this process can do."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def install_filter(path: Path) -> None:
    """Install the seccomp program (array of struct sock_filter) in the file `path`. Every child inherits it; nobody can remove it."""
    program = path.read_bytes()
    if not program or len(program) % _INSTRUCTION_BYTES:
        raise OSError(f"{path} is not a seccomp program")
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _SockFprog(len(program) // _INSTRUCTION_BYTES, ctypes.cast(buffer, ctypes.c_void_p))
    forbid_new_privileges()
    address = ctypes.addressof(header)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, address)


def set_rlimits(values: dict[str, int]) -> None:
    """Lower resource limits (setrlimit(2)), soft and hard alike, never above the present hard limit. Names as in `resource`."""
    for name, value in values.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (bound, bound))


def thread_count() -> int:
    """Count the threads of this process. A fork copies only one, so the supervisor must have exactly one."""
    return len(os.listdir("/proc/self/task"))
