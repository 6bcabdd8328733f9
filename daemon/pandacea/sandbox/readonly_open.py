"""Opens what guests are given: by descriptor, regular files only, through a read-only mount made by the node as root or by a helper.

As a plain user a script has the node's own kernel uid in a bubblewrap sandbox, so a descriptor opened for reading could be opened again
for writing; and everywhere reading through it would move the file's access time, which the next job sees. A read-only mount prevents both.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pandacea.errors import Broken
from pandacea.sandbox import readonly_mount
from pandacea.sandbox.guest.packets import received_descriptors

_ANSWER_SECONDS: Final = 10.0
_TRIAL_FILE: Final = Path(readonly_mount.__file__)
_HELPER_COMMAND: Final = (
    *("bwrap", "--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-net"),
    *("--cap-add", "CAP_SYS_ADMIN", "--ro-bind", "/", "/", "--proc", "/proc", "--clearenv", "--"),
)


class InputOpener:
    """Opens files for guests, each through a read-only mount of its own where this process or its helper can make one."""

    def __init__(self) -> None:
        self._helper: ReadOnlyHelper | None = None
        self._open: Callable[[Path], int] = open_without_mount
        self.reason = ""
        """Why no read-only mount can be made; empty where `read_only` is True."""
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
        """Open a file and return a descriptor for reading. Raises OSError, and Broken when the helper is gone."""
        return self._open(path)

    def close(self) -> None:
        """End the helper process, if there is one."""
        if self._helper is not None:
            self._helper.close()


def open_for_guest(path: Path, uids: range | None, opener: InputOpener) -> int:
    """Open a regular file and return a read-only descriptor.

    `uids`: the kernel uids of guests. A file that one of them owns or may write is refused, because whoever may write to a file can
    open a read-only descriptor of it again for writing. None: guests have the node's own uid, so that only a read-only mount prevents
    that.

    Raises:
        Broken: the file is missing, not a regular file, or writable by a guest; the message says what to do.
    """
    try:
        descriptor = opener.open(path)
    except OSError as error:
        raise Broken(f"cannot open {path}: {error.strerror}; restore the file or register the asset again") from error
    found = os.fstat(descriptor)
    problem = None
    if not stat.S_ISREG(found.st_mode):
        problem = "it is not a regular file"
    elif (uids is None or opener.read_only) and not os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        problem = "it was not opened through a read-only mount"
    elif uids is not None and (
        found.st_uid in uids or found.st_mode & stat.S_IWOTH or (found.st_gid in uids and found.st_mode & stat.S_IWGRP)
    ):
        problem = (
            f"uids and groups {uids.start} to {uids[-1]}, which scripts run as, may write to it; "
            "change its owner or mode (chmod o-w)"
        )
    if problem:
        os.close(descriptor)
        raise Broken(f"refusing to give {path} to a script: {problem}")
    return descriptor


def open_through_mount(path: Path) -> int:
    """Open a file through a read-only mount that this process makes. Raises OSError."""
    return readonly_mount.open_read_only(os.fspath(path.absolute()))


def open_without_mount(path: Path) -> int:
    """Open a file for reading as the node itself, without moving its access time where that is allowed (own files, or as root)."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)


class ReadOnlyHelper:
    """A helper process that opens files for a node without the right to mount; `open` blocks for as long as a file's own open does."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(_ANSWER_SECONDS)
        with theirs:
            self._process = subprocess.Popen(
                [*_HELPER_COMMAND, sys.executable, "-I", "-S", "-B", readonly_mount.__file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"PATH": os.environ.get("PATH", os.defpath)},  # the node's own environment may hold a passphrase
            )

    @property
    def pid(self) -> int:
        """The helper's process, whose only child opens the files."""
        return self._process.pid

    def open(self, path: Path) -> int:
        """Open a file through a read-only mount and return its descriptor.

        Raises:
            OSError: as the system call does.
            Broken: the helper is gone.
        """
        try:
            self._sock.send(os.fsencode(path.absolute()))
            data, ancillary, _, _ = self._sock.recvmsg(64, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        except (OSError, TimeoutError) as error:
            raise Broken(f"the read-only helper does not answer ({error}); restart the node") from error
        if descriptors := received_descriptors(ancillary):
            return descriptors[0]
        if not data:
            raise Broken("the read-only helper ended; does bubblewrap run here? Try: bwrap --ro-bind / / true")
        number = int(data)
        raise OSError(number, os.strerror(number), str(path))

    def close(self) -> None:
        """End the helper process."""
        self._sock.close()
        with contextlib.suppress(ProcessLookupError):  # it ended when the socket closed
            self._process.kill()
        self._process.wait()
