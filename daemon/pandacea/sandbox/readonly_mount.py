"""Opens a file so that whoever holds the descriptor can never write to it, move its access time, or read where it lies.

Standard library only: it is also the program of the helper process of `opener`.

The file alone is cloned into a mount that is attached nowhere and read-only, and opened through that mount. Opened again by
/proc/self/fd the descriptor leads to the same mount: opening for writing is refused with EROFS, reading leaves no access time behind,
and the path that the kernel shows for it is "/".
"""

from __future__ import annotations

import array
import ctypes
import os
import socket
import sys

_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_OPEN_TREE = 428  # the same numbers on x86_64 and aarch64
_MOUNT_SETATTR = 442
_RDONLY_NOSUID_NODEV_NOEXEC = 1 | 2 | 4 | 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd"))


def open_read_only(path: str) -> int:
    """Return a descriptor of the file, opened through a read-only mount of its own; a link is not followed.

    Needs CAP_SYS_ADMIN over the mount namespace, and Linux 5.12. Raises OSError.
    """
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        tree = _call(_OPEN_TREE, place, b"", _AT_EMPTY_PATH | _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    finally:
        os.close(place)
    try:
        wanted = _MountAttributes(set=_RDONLY_NOSUID_NODEV_NOEXEC)
        _call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), ctypes.sizeof(wanted))
        return os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(tree)


def _call(number: int, *arguments: object) -> int:
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *given)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def serve(sock: socket.socket) -> None:
    """Open what is asked for, until the other end goes away."""
    while True:
        path = sock.recv(8192)
        if not path:
            return
        try:
            descriptor = open_read_only(os.fsdecode(path))
        except OSError as error:
            sock.send(str(error.errno).encode())
        else:
            sock.sendmsg([b"0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
            os.close(descriptor)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
