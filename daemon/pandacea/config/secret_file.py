"""Read a secret from the first line of a private, regular file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from pandacea.errors import BadConfig

_MAX_FILE_BYTES: Final = 16 * 1024


def read_secret(file: Path, label: str) -> str:
    """Read the first line of a file that only its owner can read.

    `called` begins the sentence of an error: what the file is to whoever reads it, for example `The passphrase file`.

    Raises:
        BadConfig: the file is missing, is not a regular file, can be read by others, or is not UTF-8.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadConfig(f"{label} {file} cannot be read: {error.strerror}.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadConfig(f"{label} {file} is not a regular file.")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise BadConfig(f"{label} {file} can be read by others (mode {mode:o}): run chmod 600 {file}.")
        raw = os.read(descriptor, _MAX_FILE_BYTES)
    finally:
        os.close(descriptor)
    try:
        return raw.decode("utf-8").partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise BadConfig(f"{label} {file} is not UTF-8.") from None
