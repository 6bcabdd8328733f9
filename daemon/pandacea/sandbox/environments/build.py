"""The folder of pinned packages that bubblewrap boxes run with: built once, locked, named by the digest of its lock."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from pandacea.errors import Broken
from pandacea.sandbox.environments import lock as lock_script
from pandacea.sandbox.environments import pip

LOCK_FILE: Final = "pandacea-environment.json"
_UNFINISHED_MARK: Final = ".pandacea-unfinished"
"""A file in a folder that is being made: what a kill leaves is told from an environment by it."""


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
    return Path(str(resources.files("pandacea.sandbox") / "environments" / "requirements.txt"))


def read_environment(folder: Path) -> Environment:
    """Read the lock of a built environment.

    Raises:
        Broken: the folder holds no environment, or its Python is gone.
    """
    try:
        lock = json.loads((folder / LOCK_FILE).read_text(encoding="utf-8"))
        environment = Environment(
            folder=folder,
            interpreter=lock["interpreter"],
            base_prefix=lock["base_prefix"],
            python=lock["python"],
            packages=tuple(lock["packages"]),
            identity=lock_script.identity(lock["python"], lock["packages"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Broken(f"{folder} holds no sandbox environment ({error})", remedy=_build_remedy(folder)) from error
    if not Path(environment.interpreter).exists():
        raise Broken(f"the Python of {folder}, {environment.interpreter}, is gone", remedy=_build_remedy(folder))
    return environment


def _build_remedy(folder: Path) -> str:
    return f"run `pandacea environment build --directory {shlex.quote(str(folder))}`"


def public_pins(packages: Sequence[str]) -> list[str]:
    """Without local versions: `2.13.0+cpu` names one index's build, and the public version asks any index for the same release."""
    return [package.partition("+")[0] for package in packages]


def build_environment(
    folder: Path,
    requirements: Path | None = None,
    progress: Callable[[str], None] = print,
    python: str = sys.executable,
) -> Environment:
    """Make a virtual environment in `folder`, install the pinned packages, compile them, write the lock. Minutes long.

    Silent, and quick, when it is there. A half-made one, or one of another Python, is made again; what was downloaded before is kept
    in `<folder>.wheels` until the environment stands. `progress` gets one line at a time. pip's own settings (PIP_INDEX_URL,
    PIP_EXTRA_INDEX_URL, PIP_CERT ...) are taken from the process.

    Raises:
        Broken: the folder holds something else, python3-venv is missing, the disk is full, no index answers, or pip failed.
    """
    requirements = requirements or default_requirements()
    unfinished, wheels = folder / _UNFINISHED_MARK, folder.with_name(f"{folder.name}.wheels")
    if folder.exists() and any(folder.iterdir()) and not ((folder / "pyvenv.cfg").exists() or unfinished.exists()):
        raise Broken(f"{folder} is not empty and no environment; choose another folder")
    installed = _find_installed(folder, python, progress)
    if installed is not None and _read_pins(requirements) <= {
        pip.canonical_pin(package) for package in public_pins(installed.packages)
    }:
        return installed
    if installed is None:
        progress(f"Creating {folder}")
        make_venv(folder, unfinished, python)
    inside = str(folder / "bin" / "python")
    if installed is None:
        pip.upgrade_pip(inside)
    progress(f"Asking the index for what {requirements.name} needs")
    wanted = pip.resolve(inside, requirements)
    warn_about_cuda(wanted, progress)
    wheels.mkdir(exist_ok=True)
    there = {pip.canonical_pin(package) for package in installed.packages} if installed else set()
    new = [package for package in wanted if package not in there]
    unfinished.touch()
    pip.download_wheels(inside, new, wheels, progress)
    progress(f"Installing {len(new)} packages")
    pip.install_wheels(inside, sorted(wheels.glob("*.whl")))
    environment = lock_environment(folder, progress)
    unfinished.unlink()
    shutil.rmtree(wheels)
    return environment


def _read_pins(requirements: Path) -> set[str]:
    lines = (line.strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    return {pip.canonical_pin(line) for line in lines if line and not line.startswith("#")}


def _find_installed(folder: Path, python: str, progress: Callable[[str], None]) -> Environment | None:
    """The whole environment of this Python that is in `folder`; None, said where there was something, when it must be made."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if (folder / _UNFINISHED_MARK).exists() or not (folder / LOCK_FILE).exists():
        progress(f"An earlier run left {folder} half-made: making it again, from what was downloaded")
        return None
    inside = folder / "bin" / "python"
    try:
        environment = read_environment(folder)
        runs = pip.python_version(str(inside))
    except (Broken, OSError):
        progress(f"The Python of {folder} is gone: making it again")
        return None
    if runs != (ours := pip.python_version(python)):
        progress(f"{folder} was made with Python {runs} and it is {ours} now: making it again")
        return None
    return environment


def make_venv(folder: Path, unfinished: Path, python: str) -> None:
    """Make an empty virtual environment, with a mark that stays until it is whole.

    Raises:
        Broken: python3-venv is missing, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    for left in folder.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif left != unfinished:
            left.unlink()
    pip.run_command(
        [python, "-m", "venv", str(folder)], "install python3-venv (sudo apt-get install python3-venv) and run this again"
    )


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
    lock = json.loads(pip.run_command([inside, str(Path(lock_script.__file__))], "run this again"))
    fresh = folder / (LOCK_FILE + ".new")
    fresh.write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")
    os.replace(fresh, folder / LOCK_FILE)  # noqa: PTH105 - atomic
    environment = read_environment(folder)
    progress(f"Environment {environment.identity}: {len(environment.packages)} packages on Python {environment.python}")
    return environment


def warn_about_cuda(wanted: Sequence[str], progress: Callable[[str], None]) -> None:
    """Say so when the index serves the CUDA build of torch, with its size and the way round."""
    heavy = [name for name in wanted if name.startswith(("nvidia-", "cuda-", "triton"))]
    if heavy:
        progress(
            f"Note: this index serves torch with CUDA ({len(heavy)} extra packages, about 2.5 GB to download and 6 GB on disk). "
            "The CPU build is enough here: set PIP_EXTRA_INDEX_URL to an index of CPU wheels and run this again."
        )
