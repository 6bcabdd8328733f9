"""Runs pip: reports its progress, explains its failures and keeps what it downloaded."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pandacea.errors import Broken

_COMMAND_SECONDS: Final = 3600
_PACKAGES_PER_RUN: Final = 6
"""Packages in one run of pip: a run keeps its files only when all are downloaded, so an interruption loses at most this many."""
_NEEDED_GB: Final = 3.5
"""Disk in GB for download and installation of the pinned list with the CPU build of torch (1.9 GB installed)."""
_RETRY_REMEDY: Final = "run the same command again: what was downloaded is kept"
_UNREACHABLE: Final = re.compile(
    r"NewConnectionError|NameResolutionError|ProxyError|Max retries exceeded|Connection(?:Reset|Refused)?Error|ReadTimeout|"
    r"Temporary failure in name resolution|connection broken|Connection aborted|"
    r"\b50[0234] (?:Server )?Error|IncompleteRead|IncompleteDownload|"
    r"issue with network connectivity"
)


def python_version(python: str) -> str:
    """Return an interpreter's version, for example `3.11`. Raises Broken when it does not run."""
    return run_command([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], "build the environment again").strip()


def upgrade_pip(python: str) -> None:
    """Upgrade pip: since version 25 it resolves without downloading the packages, and resumes an interrupted download."""
    words = ["install", "--quiet", "--upgrade", "--no-compile", "pip"]
    with contextlib.suppress(
        Broken
    ):  # the index has no pip: the version that came with Python does the same, with more to download
        run_command([*_pip(python), *words], _RETRY_REMEDY)


def resolve(python: str, requirements: Path) -> list[str]:
    """Return all packages that the requirements need, as `name==version` in pip's order. Raises Broken."""
    words = ["install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", "-r", str(requirements)]
    report = json.loads(run_command([*_pip(python), *words], _RETRY_REMEDY))
    return [f"{canonical_name(item['metadata']['name'])}=={item['metadata']['version']}" for item in report["install"]]


def download_wheels(python: str, packages: Sequence[str], folder: Path, progress: Callable[[str], None]) -> None:
    """Download a wheel of each package into `folder`, except those that it contains already.

    Raises:
        Broken: pip failed; what was downloaded before stays.
    """
    there = {_wheel_pin(wheel) for wheel in folder.glob("*.whl")}
    missing = [(number, package) for number, package in enumerate(packages, 1) if package not in there]
    if there and missing:
        progress(f"{len(packages) - len(missing)} of {len(packages)} packages were downloaded before")
    resume = ["--resume-retries", "5"] if _can_resume(python) else []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:  # beside the wheels: /tmp is often too small for them
        for start in range(0, len(missing), _PACKAGES_PER_RUN):
            some = missing[start : start + _PACKAGES_PER_RUN]
            numbers = {package.partition("==")[0]: number for number, package in some}
            words = ["wheel", "--progress-bar", "off", "--no-deps", *resume, "--wheel-dir", str(folder)]
            lines = _stream_lines([*_pip(python), *words, *(package for _, package in some)], _RETRY_REMEDY, scratch)
            for line in lines:
                found = re.match(r"Collecting ([A-Za-z0-9._-]+)==(\S+)", line)
                if found and (number := numbers.get(canonical_name(found[1]))):
                    progress(f"  [{number}/{len(packages)}] {found[1]} {found[2]}")


def install_wheels(python: str, wheels: Sequence[Path]) -> None:
    """Install exactly these wheels, without an index. Raises Broken."""
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    run_command([*_pip(python), *words, *map(str, wheels)], _RETRY_REMEDY)


def run_command(line: Sequence[str], remedy: str) -> str:
    """Run a command and return its stdout. Raises Broken with the cause and `remedy`."""
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=_COMMAND_SECONDS)
    if done.returncode != 0:
        raise explain_failure(line, done.stderr + done.stdout, remedy)
    return done.stdout


def _stream_lines(line: Sequence[str], remedy: str, scratch: str) -> Iterator[str]:
    environment = {**os.environ, "TMPDIR": scratch}
    said: list[str] = []
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        assert process.stdout is not None
        for text in process.stdout:
            said.append(text)
            yield text.rstrip()
    if process.returncode != 0:
        raise explain_failure(line, "".join(said), remedy)


def explain_failure(line: Sequence[str], printed: str, remedy: str) -> Broken:
    """Return the error for a failed pip (or venv): the disk, the network, else its own output."""
    if "No space left on device" in printed or "Errno 28" in printed:
        return Broken(
            f"the disk is full: the sandbox's environment needs about {_NEEDED_GB:g} GB while it is built",
            remedy=f"free some, then {_RETRY_REMEDY}",
        )
    if _UNREACHABLE.search(printed):
        return Broken(
            "the package index does not answer, or the download was interrupted",
            remedy=f"check the network, the proxy (HTTPS_PROXY) and the index (PIP_INDEX_URL), then {_RETRY_REMEDY}",
        )
    errors = [text for text in printed.splitlines() if text.startswith("ERROR:")] or printed.strip().splitlines()[-3:]
    return Broken(f"{' '.join(line[1:4])} failed: {' '.join(errors)[-2000:]}", remedy=remedy)


def _pip(python: str) -> list[str]:
    return [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _can_resume(python: str) -> bool:
    """Whether this pip resumes an interrupted download (25.1 and later)."""
    return "--resume-retries" in run_command([*_pip(python), "wheel", "--help"], _RETRY_REMEDY)


def canonical_name(name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _wheel_pin(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{canonical_name(name)}=={version}"


def canonical_pin(pin: str) -> str:
    """Return `Name==version` with the name as indexes compare it."""
    name, same, version = pin.partition("==")
    return f"{canonical_name(name)}{same}{version}"
