"""A reader at a terminal: types the lines of a document into one shell, in a clone of the repository, and answers what is asked."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.prerequisites import ROOT

CLONED = ("daemon", "examples", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "config.yaml")
DONE = "--- line done: "
"""Says that a line has ended, and how."""
Answer = Callable[[str], str]
"""What is typed when a command asks: from what was said so far to an answer."""


def clone(folder: Path) -> Path:
    """What pip needs of a clone of this repository, and the examples."""
    folder.mkdir(parents=True)
    for name in CLONED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def lines_of(text: str) -> list[str]:
    """The commands of a document's indented blocks, without their comments."""
    return [re.sub(r"  +# .*", "", line[4:]) for line in text.splitlines() if line.startswith("    ")]


class Terminal:
    """One shell. It knows `python3` as the interpreter of these tests, and nothing of this checkout's environment."""

    def __init__(self, folder: Path, home: Path, **environment: str) -> None:
        """Start it in `folder`."""
        tools = home / "tools"
        tools.mkdir(parents=True, exist_ok=True)
        (tools / "python3").unlink(missing_ok=True)
        (tools / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (tools / "python3").chmod(0o755)
        path = os.pathsep.join([str(tools), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        # pip builds the wheel of the clone with what is here; the libraries are shared with these tests, see `share_libraries`.
        pip = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.variables = {"PATH": path, "HOME": str(home), "TMPDIR": os.environ.get("TMPDIR", "/tmp"), **pip, **environment}
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=self.variables,
            start_new_session=True,
        )

    def type(self, line: str, answer: Answer | None = None) -> str:
        """Type one line and wait for its end; it must succeed. Returns what was said."""
        said = self.start(line)
        told = ""
        for byte in said:
            told += byte
            if answer is not None and told.endswith("] "):
                self._write(answer(told) + "\n")
        text, _, status = told.rpartition(DONE)
        assert status.strip() == "0", f"{line}\n{text}"
        return text

    def start(self, line: str) -> Iterator[str]:
        """Type one line; what it says, character by character, until it ends."""
        self._write(f"eval {shlex.quote(line)}; echo '{DONE}'$?\n")  # in one line: what follows belongs to who asks
        assert self._shell.stdout is not None
        told = bytearray()
        while byte := self._shell.stdout.read(1):
            told += byte
            yield byte.decode("utf-8", "replace")
            if byte == b"\n" and DONE.encode() in told.rpartition(b"\n")[0].rpartition(b"\n")[2]:
                return
        raise AssertionError(f"the shell ended at {line!r}: {told.decode(errors='replace')}")

    def _write(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(text.encode())
        self._shell.stdin.flush()

    def close(self) -> None:
        """End the shell, and what it left in the background."""
        self._write("kill $(jobs -p) 2>/dev/null; wait; exit\n")
        try:
            self._shell.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)  # a node that is still opening its sandbox
            self._shell.communicate()


@contextmanager
def terminal(folder: Path, home: Path, **environment: str) -> Iterator[Terminal]:
    """A terminal that is closed in the end."""
    opened = Terminal(folder, home, **environment)
    try:
        yield opened
    finally:
        opened.close()


def share_libraries(venv: Path) -> None:
    """Let a virtual environment find the libraries of the one these tests run in, all but pandacea: that comes from the wheel.

    A line in a .pth file adds a folder without what that folder's own .pth files add, so the editable checkout stays out.
    """
    (packages,) = (venv / "lib").glob("python3.*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
