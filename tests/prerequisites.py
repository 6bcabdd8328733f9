"""Find the programs that tests need. Where one is missing, the test is skipped with its reason; under CI=true it fails."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test with this reason, or fail it under CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has no skips: {reason}")
    pytest.skip(reason)


def find_program(name: str, package: str) -> str:
    """Find the path of a command, also where Debian installs servers; `package`: what to install where it is missing."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        skip_or_fail(f"{name} is not installed; run: apt-get install {package}")
    return found


def free_port() -> int:
    """Find a TCP port on loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


ROOT = Path(__file__).resolve().parent.parent
