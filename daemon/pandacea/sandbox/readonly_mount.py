"""Opens a file through a read-only mount of its own, so that the descriptor cannot be used to write, to move its access time or to find it.

Standard library only: `readonly_open` also runs this file as its helper process.

The file alone is cloned into a detached read-only mount, and opened through that mount. When the descriptor is opened again by
/proc/self/fd it leads to the same mount: opening for writing fails with EROFS, reading does not move the access time,
and the path that the kernel shows for it is "/".
"""

from __future__ import annotations

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
    """Open a file through a read-only mount of its own and return the descriptor; a symbolic link is not followed.

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
    """Open each requested path and send its descriptor, or the number of the error, until the other end closes."""
    while True:
        path = sock.recv(8192)
        if not path:
            return
        try:
            descriptor = open_read_only(os.fsdecode(path))
        except OSError as error:
            sock.send(str(error.errno).encode())
        else:
            socket.send_fds(sock, [b"0"], [descriptor])
            os.close(descriptor)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
