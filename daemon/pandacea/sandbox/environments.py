"""The folder of pinned packages that bubblewrap boxes run with: built once, locked, named by the digest of its lock."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from pandacea.errors import Broken
from pandacea.sandbox.environment import lock as lock_script

LOCK: Final = "pandacea-environment.json"
_PIP_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Environment:
    """One built environment. `packages`: `name==version` lines, sorted: what the catalogue publishes."""

    folder: Path
    interpreter: str
    base_prefix: str
    python: str
    packages: tuple[str, ...]
    identity: str
    """`sha256:` and the digest of Python's version and the packages."""


def default_requirements() -> Path:
    """The pinned list shipped with the node."""
    return Path(str(resources.files("pandacea.sandbox") / "environment" / "requirements.txt"))


def read_environment(folder: Path) -> Environment:
    """Read the lock of a built environment.

    Raises:
        Broken: the folder holds no environment, or its Python is gone.
    """
    try:
        lock = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        environment = Environment(
            folder=folder,
            interpreter=lock["interpreter"],
            base_prefix=lock["base_prefix"],
            python=lock["python"],
            packages=tuple(lock["packages"]),
            identity=lock_script.identity(lock["python"], lock["packages"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Broken(f"{folder} holds no sandbox environment ({error})", remedy=_build(folder)) from error
    if not Path(environment.interpreter).exists():
        raise Broken(f"the Python of {folder}, {environment.interpreter}, is gone", remedy=_build(folder))
    return environment


def _build(folder: Path) -> str:
    return f"run `pandacea environment build --directory {shlex.quote(str(folder))}`"


def installable(packages: Sequence[str]) -> list[str]:
    """Without local versions: `2.13.0+cpu` names one index's build, and the public version asks any index for the same release."""
    return [package.partition("+")[0] for package in packages]


def build_environment(
    folder: Path,
    requirements: Path | None = None,
    progress: Callable[[str], None] = print,
    python: str = sys.executable,
) -> Environment:
    """Make a virtual environment in `folder`, install the pinned packages, compile them, write the lock. Idempotent, minutes long.

    `progress` gets one line at a time. pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_CERT ...) are taken from the process.

    Raises:
        Broken: the folder holds something else, python3-venv is missing, or pip failed; the message holds pip's last lines.
    """
    requirements = requirements or default_requirements()
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise Broken(f"{folder} is not empty and no environment; choose another folder")
    if not (folder / "bin" / "python").exists():
        progress(f"Creating {folder}")
        _run([python, "-m", "venv", str(folder)], progress, "install python3-venv (apt-get install python3-venv) and try again")
    inside = str(folder / "bin" / "python")
    warn_of_cuda(inside, requirements, progress)
    progress(f"Installing {requirements}")
    pip = [inside, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "install", "--no-compile", "-r", str(requirements)], progress, "see pip's words above")
    return lock_environment(folder, progress)


def lock_environment(folder: Path, progress: Callable[[str], None] = print) -> Environment:
    """Compile every module (a box's file system is read-only) and write the lock of an installed environment."""
    inside = str(folder / "bin" / "python")
    progress("Compiling")
    subprocess.run(
        [inside, "-m", "compileall", "-q", "-j", "0", str(folder / "lib")],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # some packages ship files for other Pythons that do not compile; they are never imported
    lock = json.loads(_output([inside, str(Path(lock_script.__file__))]))
    fresh = folder / (LOCK + ".new")
    fresh.write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")
    os.replace(fresh, folder / LOCK)  # noqa: PTH105 - atomic
    environment = read_environment(folder)
    progress(f"Environment {environment.identity}: {len(environment.packages)} packages on Python {environment.python}")
    return environment


def warn_of_cuda(python: str, requirements: Path, progress: Callable[[str], None]) -> None:
    """Ask pip what it would install and say so when the index serves the CUDA build of torch, with its size and the way round."""
    report = _output(
        [
            python,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--report",
            "-",
            "-r",
            str(requirements),
        ]
    )
    names = [item["metadata"]["name"].lower() for item in json.loads(report)["install"]]
    heavy = [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))]
    if heavy:
        progress(
            f"Note: this index serves torch with CUDA ({len(heavy)} extra packages, about 2.5 GB to download and 6 GB on disk). "
            "The CPU build is enough here: set PIP_EXTRA_INDEX_URL to an index of CPU wheels and run this again."
        )


def _output(line: list[str]) -> str:
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=_PIP_SECONDS)
    if done.returncode != 0:
        raise Broken(f"{' '.join(line[:4])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _run(line: list[str], progress: Callable[[str], None], advice: str) -> None:
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        last = ""
        for text in process.stdout:
            last = text.rstrip()
            progress(last)
    if process.returncode != 0:
        raise Broken(f"{' '.join(line[:4])} failed ({last}): {advice}")
