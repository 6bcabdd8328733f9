"""How the node opens what it hands to scripts: through read-only mounts, made by itself as root, else by a helper process.

As a plain user a script has the node's own kernel uid in a bubblewrap box, so a descriptor opened for reading could be opened again for
writing; and everywhere reading through it would move the file's access time, which the next job sees. Both end at a read-only mount.
"""

from __future__ import annotations

import array
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pandacea.errors import Broken
from pandacea.sandbox import readonly_mount

_ANSWER_SECONDS: Final = 10.0
_TRIAL_FILE: Final = Path(readonly_mount.__file__)
_HELPER_COMMAND: Final = (
    "bwrap",
    "--die-with-parent",
    "--unshare-user",
    "--unshare-pid",
    "--unshare-net",
    "--cap-add",
    "CAP_SYS_ADMIN",
)


class InputOpener:
    """Opens files for scripts. `read_only`: each through a mount of its own; False where this process can make none."""

    def __init__(self) -> None:
        self._helper: ReadOnlyHelper | None = None
        self._open: Callable[[Path], int] = open_without_mount
        self.reason = ""
        """Why not, where `read_only` is False."""
        try:
            os.close(open_through_mount(_TRIAL_FILE))
        except OSError as error:
            self.reason = str(error)
            self._start_helper()
        else:
            self._open = open_through_mount

    def _start_helper(self) -> None:
        if shutil.which(_HELPER_COMMAND[0]) is None:
            self.reason += ", and bubblewrap, which could, is not installed"
            return
        helper = ReadOnlyHelper()
        try:
            os.close(helper.open(_TRIAL_FILE))
        except (OSError, Broken) as error:
            self.reason += f"; with bubblewrap: {error}"
            helper.close()
        else:
            self._helper, self._open = helper, helper.open

    @property
    def read_only(self) -> bool:
        """Whether files are opened through read-only mounts."""
        return self._open is not open_without_mount

    def open(self, path: Path) -> int:
        """Return a descriptor for reading. Raises OSError, and Broken when the helper is gone."""
        return self._open(path)

    def close(self) -> None:
        """End the helper, where there is one."""
        if self._helper is not None:
            self._helper.close()


def open_through_mount(path: Path) -> int:
    """Open through a read-only mount, made by this very process. Raises OSError."""
    return readonly_mount.open_read_only(os.fspath(path.absolute()))


def open_without_mount(path: Path) -> int:
    """Open for reading as the node itself, without moving the access time where it may (its own files, or as root)."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)


class ReadOnlyHelper:
    """One helper process; `open` is quick (a round trip on this machine) and may block for as long as a file's own open does."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(_ANSWER_SECONDS)
        view = [*_HELPER_COMMAND, "--ro-bind", "/", "/", "--proc", "/proc", "--clearenv", "--"]
        with theirs:
            self._process = subprocess.Popen(
                [*view, sys.executable, "-I", "-S", "-B", readonly_mount.__file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"PATH": os.environ.get("PATH", os.defpath)},  # the node's own may hold a passphrase
            )

    @property
    def pid(self) -> int:
        """The helper's process, whose only child opens the files."""
        return self._process.pid

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
