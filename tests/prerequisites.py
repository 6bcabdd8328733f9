"""Real parts: found, or the test is skipped with its reason; under CI=true a missing part is a failure."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest


def skip_or_fail(reason: str) -> NoReturn:
    """Skip, or fail under CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has no skips: {reason}")
    pytest.skip(reason)


def find_program(name: str, package: str) -> str:
    """The path of a command, looked for where Debian puts servers too."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        skip_or_fail(f"{name} is not installed; run: apt-get install {package}")
    return found


def free_port() -> int:
    """A TCP port on loopback that nothing uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


ROOT = Path(__file__).resolve().parent.parent
