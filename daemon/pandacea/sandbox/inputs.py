"""Opening what a job is given: by descriptor, regular files only, never in a way the guest could turn into writing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pandacea.errors import Broken
from pandacea.sandbox.readonly_open import InputOpener


def open_for_guest(path: Path, uids: range | None, opener: InputOpener) -> int:
    """Return a read-only descriptor of a regular file.

    `uids`: the kernel's uids of guests; a file that one of them owns or may write is refused, because a descriptor opened for reading
    can be reopened for writing by who may. None: guests have the node's own, so that only a read-only mount keeps them from it.

    Raises:
        Broken: the file is missing, no regular file, or writable by a guest; the message says what to do.
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
        raise Broken(f"refusing to hand {path} to a script: {problem}")
    return descriptor
