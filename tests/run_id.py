"""What this run of the tests makes, told apart from what anybody else makes on the same machine at the same time."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

RUN_ID: Final = os.environ.setdefault("PANDACEA_TEST_RUN", f"run{secrets.token_hex(4)}")
"""This run's own word: processes that a test starts inherit it."""

PUBLIC_TMP: Final = Path("/tmp")
"""On every Linux, and everybody's."""


def instance_name(name: str) -> str:
    """Return a node's label, unique for each process of this run; what carries it was made here."""
    return f"{RUN_ID}-{name}-{os.getpid()}"


def public_folder(name: str) -> Path:
    """Make a folder for servers, wherever the machine's temporary folder is and whoever may enter that.

    Other users reach it (a database server refuses to be root), and its path is short enough for Unix sockets (107 bytes).
    """
    folder = Path(tempfile.mkdtemp(prefix=f"pandacea-{RUN_ID}-{name}-", dir=PUBLIC_TMP))
    folder.chmod(0o711)
    return folder
