"""A container engine of a test's own, so that nobody else's is stopped, filled or counted on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.prerequisites import find_program
from tests.run_id import public_folder


class Engine:
    """One dockerd with its own socket, data and network namespace."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/engine.sock"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        folder = self._folder
        line = [
            *("unshare", "--net"),  # an engine without bridge removes the bridge of the machine's own engine
            find_program("dockerd", "docker.io"),
            "--host",
            self.url,
            "--data-root",
            f"{folder}/data",
            "--exec-root",
            f"{folder}/exec",
        ]
        line += ["--pidfile", f"{folder}/pid", "--iptables=false", "--ip6tables=false", "--bridge=none"]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(line, stdout=log, stderr=log)
        for _ in range(300):
            if self.docker("version") is not None:
                return
            assert self._process.poll() is None, (folder / "log").read_text()[-2000:]
        raise AssertionError((folder / "log").read_text()[-2000:])

    def docker(self, *words: str) -> str | None:
        """What the client says, or None when it fails."""
        done = subprocess.run(["docker", "--host", self.url, *words], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def stop(self) -> None:
        """Stop it as a service manager would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None


@contextmanager
def private_engine() -> Iterator[Engine]:
    """A started engine that holds no image; ended, unmounted and removed afterwards."""
    folder = public_folder("engine")
    made = Engine(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if str(folder) in line:
                subprocess.run(["umount", line.split()[1]], check=False)
        shutil.rmtree(folder)
