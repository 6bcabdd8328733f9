"""The id of this run of the tests, which marks what it makes: other runs and nodes may be on the same machine at the same time."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

RUN_ID: Final = os.environ.setdefault("PANDACEA_TEST_RUN", f"run{secrets.token_hex(4)}")
"""Unique to this run; processes that a test starts inherit it by the environment."""

PUBLIC_TMP: Final = Path("/tmp")
"""Exists on every Linux, and every user may enter it."""


def instance_name(name: str) -> str:
    """Make a node's label, unique for each process of this run."""
    return f"{RUN_ID}-{name}-{os.getpid()}"


def public_folder(name: str) -> Path:
    """Make a folder for servers outside the machine's temporary folder, which other users may not enter.

    Other users reach it (a database server refuses to run as root), and its path is short enough for Unix sockets (107 bytes).
    """
    folder = Path(tempfile.mkdtemp(prefix=f"pandacea-{RUN_ID}-{name}-", dir=PUBLIC_TMP))
    folder.chmod(0o711)
    return folder
