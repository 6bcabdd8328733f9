"""Opens files through a read-only view of the file system, for a node whose scripts run under its own kernel uid (no root).

A descriptor opened for reading can be reopened for writing through /proc/self/fd by whoever may write the file. One that was opened
through a read-only mount cannot, whoever asks: the kernel answers EROFS. The view is a mount namespace made by bubblewrap, held by one
small helper process that does nothing but open what the node names.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from pandacea.errors import Broken

_ANSWER_SECONDS: Final = 10.0
_HELPER: Final = """
import array, os, socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
while True:
    path = sock.recv(8192)
    if not path:
        break
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        try:
            fd = os.open(path, flags | os.O_NOATIME)
        except PermissionError:
            fd = os.open(path, flags)
    except OSError as error:
        sock.send(str(error.errno).encode())
    else:
        sock.sendmsg([b"0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        os.close(fd)
"""


class ReadOnlyOpener:
    """One helper process; `open` is quick (a round trip on this machine) and may block for as long as a file's own open does."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(_ANSWER_SECONDS)
        view = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "--"]
        with theirs:
            self._process = subprocess.Popen(
                [*view, sys.executable, "-I", "-S", "-c", _HELPER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    def open(self, path: Path) -> int:
        """Return a descriptor opened through the read-only view.

        Raises:
            OSError: as the system call does.
            Broken: the helper is gone.
        """
        try:
            self._sock.send(os.fsencode(path.absolute()))
            data, ancillary, _, _ = self._sock.recvmsg(64, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        except (OSError, TimeoutError) as error:
            raise Broken(f"the read-only opener is gone ({error}); restart the node") from error
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                return array.array("i", value[:4])[0]
        if not data:
            raise Broken("the read-only opener ended; does bubblewrap run here? Try: bwrap --ro-bind / / true")
        number = int(data)
        raise OSError(number, os.strerror(number), str(path))

    def close(self) -> None:
        """End the helper."""
        self._sock.close()
        with contextlib.suppress(ProcessLookupError):  # it ended when the socket closed
            self._process.kill()
        self._process.wait()
