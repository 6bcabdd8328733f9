"""Opening what a job is given: by descriptor, regular files only, never in a way the guest could turn into writing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pandacea.errors import Broken

READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def open_file(path: Path) -> int:
    """Open for reading as the node itself; where it may (its own files, or as root) so that reading leaves no access time behind."""
    try:
        return os.open(path, READ | os.O_NOATIME)  # an access time would tell one job that another read the same table
    except PermissionError:
        return os.open(path, READ)


def open_for_guest(path: Path, guest_uid: int | None, opener: Callable[[Path], int] = open_file) -> int:
    """Return a read-only descriptor of a regular file.

    `guest_uid`: the kernel's uid of the guest; a file that this uid owns or may write is refused, because a descriptor opened for
    reading can be reopened for writing by who may. None: `opener` opens through a read-only mount, where nobody may.

    Raises:
        Broken: the file is missing, no regular file, or writable by the guest; the message says what to do.
    """
    try:
        descriptor = opener(path)
    except OSError as error:
        raise Broken(f"cannot open {path}: {error.strerror}; restore the file or register the asset again") from error
    found = os.fstat(descriptor)
    problem = None
    if not stat.S_ISREG(found.st_mode):
        problem = "it is not a regular file"
    elif guest_uid is None:
        if not os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
            problem = "it was not opened through a read-only mount"
    elif found.st_uid == guest_uid or found.st_mode & stat.S_IWOTH or (found.st_gid == guest_uid and found.st_mode & stat.S_IWGRP):
        problem = f"uid and group {guest_uid}, which scripts run as, may write to it; change its owner or mode (chmod o-w)"
    if problem:
        os.close(descriptor)
        raise Broken(f"refusing to hand {path} to a script: {problem}")
    return descriptor
