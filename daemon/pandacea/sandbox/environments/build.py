"""Builds and reads an environment, the folder of pinned packages for sandboxes; the digest of its lock identifies it."""

from __future__ import annotations

import json
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
from pandacea.files.durable import replace_file
from pandacea.sandbox.environments import lock as lock_script
from pandacea.sandbox.environments import pip

LOCK_FILE: Final = "pandacea-environment.json"
_UNFINISHED_MARK: Final = ".pandacea-unfinished"
"""A file that a folder contains while it is built: it distinguishes what an interrupted build left from an environment."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One built environment. `packages`: sorted `name==version` lines, as the node publishes them."""

    folder: Path
    interpreter: str
    base_prefix: str
    python: str
    packages: tuple[str, ...]
    identity: str
    """`sha256:` and the digest (hex) of Python's version and the packages."""
    modules: tuple[str, ...] = ()
    """The top-level modules of the packages; empty: not known."""


def default_requirements() -> Path:
    """Return the list of pinned packages that is shipped with the node."""
    return Path(str(resources.files("pandacea.sandbox") / "environments" / "requirements.txt"))


def read_environment(folder: Path) -> Environment:
    """Read the lock of a built environment.

    Raises:
        Broken: the folder does not contain an environment, or its Python is missing.
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
            modules=tuple(lock.get("modules") or _list_modules(folder)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Broken(f"{folder} does not contain a sandbox environment ({error})", remedy=_build_remedy(folder)) from error
    if not Path(environment.interpreter).exists():
        raise Broken(f"the Python of {folder}, {environment.interpreter}, is missing", remedy=_build_remedy(folder))
    return environment


def _list_modules(folder: Path) -> list[str]:
    """Look for the modules themselves, for an environment whose lock does not name them."""
    return sorted({name for found in folder.glob("lib/python*/site-packages") for name in lock_script.list_modules(str(found))})


def _build_remedy(folder: Path) -> str:
    return f"run `pandacea environment build --directory {shlex.quote(str(folder))}`"


def public_pins(packages: Sequence[str]) -> list[str]:
    """Return pins without local versions: `2.13.0+cpu` names the build of one index, `2.13.0` the same release on any index."""
    return [package.partition("+")[0] for package in packages]


def build_environment(
    folder: Path,
    requirements: Path | None = None,
    progress: Callable[[str], None] = print,
    python: str = sys.executable,
) -> Environment:
    """Create a virtual environment in `folder`, install the pinned packages, compile them and write the lock. Takes minutes.

    Quick and without output when it is complete. An incomplete one, or one of another Python, is built again; downloads are kept
    in `<folder>.wheels` until the environment is complete. `progress` gets one line at a time. pip's own settings (PIP_INDEX_URL,
    PIP_EXTRA_INDEX_URL, PIP_CERT ...) are taken from the process.

    Raises:
        Broken: the folder contains something else, python3-venv is missing, the disk is full, no index answers, or pip failed.
    """
    requirements = requirements or default_requirements()
    unfinished, wheels = folder / _UNFINISHED_MARK, folder.with_name(f"{folder.name}.wheels")
    if folder.exists() and any(folder.iterdir()) and not ((folder / "pyvenv.cfg").exists() or unfinished.exists()):
        raise Broken(f"{folder} is not empty and not an environment; choose another folder")
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
    """Return the complete environment of this Python in `folder`; None when it must be built, with a line about what is there."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if (folder / _UNFINISHED_MARK).exists() or not (folder / LOCK_FILE).exists():
        progress(f"An earlier run left {folder} incomplete: building it again, with what was downloaded")
        return None
    inside = folder / "bin" / "python"
    try:
        environment = read_environment(folder)
        runs = pip.python_version(str(inside))
    except (Broken, OSError):
        progress(f"The Python of {folder} is missing: building it again")
        return None
    if runs != (ours := pip.python_version(python)):
        progress(f"{folder} was built with Python {runs}, and this is {ours}: building it again")
        return None
    return environment


def make_venv(folder: Path, unfinished: Path, python: str) -> None:
    """Create an empty virtual environment, marked as unfinished until the build is complete.

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
    """Compile every module (a sandbox's file system is read-only) and write the lock of an installed environment."""
    inside = str(folder / "bin" / "python")
    progress("Compiling")
    subprocess.run(
        [inside, "-m", "compileall", "-q", "-j", "0", str(folder / "lib")],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # some packages contain files for other Pythons that do not compile; they are never imported
    lock = json.loads(pip.run_command([inside, str(Path(lock_script.__file__))], "run this again"))
    replace_file(folder / LOCK_FILE, (json.dumps(lock, indent=2) + "\n").encode())
    environment = read_environment(folder)
    progress(f"Environment {environment.identity}: {len(environment.packages)} packages on Python {environment.python}")
    return environment


def warn_about_cuda(wanted: Sequence[str], progress: Callable[[str], None]) -> None:
    """Warn when the index serves the CUDA build of torch, with its size and how to avoid it."""
    heavy = [name for name in wanted if name.startswith(("nvidia-", "cuda-", "triton"))]
    if heavy:
        progress(
            f"Note: this index serves torch with CUDA ({len(heavy)} extra packages, about 2.5 GB to download and 6 GB on disk). "
            "The CPU build is enough here: set PIP_EXTRA_INDEX_URL to an index of CPU wheels and run this again."
        )
