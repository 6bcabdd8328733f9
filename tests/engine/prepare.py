"""Everything the sandbox tests need and may not find: an engine, the image and its base, the bubblewrap environment.

`python tests/engine/prepare.py [engine|base|wheels|image|environment|all]` does it by hand. Every step looks first and is quick when
there is nothing to do. Nothing here is needed where a container registry answers and Docker runs already.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".engine"
BASE = "debian:bookworm-slim"
IMAGE = "pandacea/pysyft-datasite:latest"
REQUIREMENTS = ROOT / "daemon/pandacea/sandbox/environment/requirements.txt"
_START_SECONDS = 60


class CannotPrepareError(Exception):
    """Something is missing that this machine does not let us make."""


def run(*line: str, quiet: bool = False) -> str:
    """Run a command and return its stdout."""
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise CannotPrepareError(f"{' '.join(line[:4])}: {done.stderr.strip()[-2000:] or done.stdout.strip()[-2000:]}")
    if not quiet:
        sys.stderr.write(done.stderr[-500:])
    return done.stdout


def answers(*line: str) -> bool:
    """Whether a command succeeds."""
    try:
        return subprocess.run(line, capture_output=True, check=False, cwd=ROOT).returncode == 0
    except FileNotFoundError:
        return False


def install(packages: Sequence[str]) -> None:
    """Install Debian packages when this is root on Debian."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotPrepareError(f"install {' '.join(packages)} and try again")
    run("apt-get", "update", quiet=True)
    run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends", *packages, quiet=True)


def engine() -> None:
    """Make a Docker engine answer: install and start one where none does."""
    if answers("docker", "version"):
        return
    if shutil.which("dockerd") is None:
        install(["docker.io"])
    if not answers("docker", "version"):
        CACHE.mkdir(exist_ok=True)
        with (CACHE / "dockerd.log").open("ab") as log:
            subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + _START_SECONDS
    while not answers("docker", "version"):
        if time.monotonic() > deadline:
            raise CannotPrepareError(f"dockerd did not start; see {CACHE / 'dockerd.log'}")
        time.sleep(0.5)


def base() -> None:
    """Make the base image be there: pulled where a registry answers, else made with debootstrap."""
    if answers("docker", "image", "inspect", BASE) or answers("docker", "pull", BASE):
        return
    if shutil.which("debootstrap") is None:
        install(["debootstrap"])
    root = CACHE / "debian"
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(exist_ok=True)
    try:
        run("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", str(root), quiet=True)
    finally:
        answers("umount", str(root / "proc"))
    for trimmed in ("var/cache/apt/archives", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / trimmed, ignore_errors=True)
    archive = CACHE / "base.tar"
    run("tar", "-C", str(root), "--exclude=./proc/*", "--exclude=./sys/*", "-cf", str(archive), ".", quiet=True)
    run("docker", "import", str(archive), BASE, quiet=True)
    archive.unlink()
    shutil.rmtree(root)


def wheels() -> None:
    """Fill .wheelhouse/ with the pinned packages for the base image's Python, so that building the image needs no network."""
    folder = ROOT / ".wheelhouse"
    stamp = folder / ("complete-" + hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16])
    if stamp.exists():
        return
    version = run("docker", "run", "--rm", "--network=none", BASE, "python3", "-c", _VERSION, quiet=True).strip()
    folder.mkdir(exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", version]
    platforms = [argument for glibc in (36, 34, 28, 27, 17) for argument in ("--platform", f"manylinux_2_{glibc}_x86_64")]
    run(*pip, *platforms, "--platform", "manylinux2014_x86_64", "-d", str(folder), "-r", str(REQUIREMENTS), quiet=True)
    stamp.touch()


_VERSION = "import sys; print('.'.join(map(str, sys.version_info[:2])))"


def image() -> str:
    """Build the image with the very command of its first lines, unless this Dockerfile and these packages are built already."""
    engine()
    stamp = hashlib.sha256((ROOT / "Dockerfile.pysyft").read_bytes() + REQUIREMENTS.read_bytes()).hexdigest()
    kept = f"pandacea/pysyft-datasite:test-{stamp[:16]}"
    if not answers("docker", "image", "inspect", kept):
        base()
        wheels()
        run("docker", "build", "-f", "Dockerfile.pysyft", "-t", IMAGE, ".", quiet=True)
        run("docker", "tag", IMAGE, kept, quiet=True)
    run("docker", "tag", kept, IMAGE, quiet=True)
    return IMAGE


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def environment() -> Path:
    """Return a bubblewrap environment: the one PANDACEA_TEST_ENVIRONMENT names, else one built beneath .sandbox/."""
    named = os.environ.get("PANDACEA_TEST_ENVIRONMENT")
    if named:
        return Path(named)
    folder = ROOT / ".sandbox"
    if shutil.which("bwrap") is None:
        install(["bubblewrap"])
    if not (folder / "pandacea-environment.json").exists():
        sys.path.insert(0, str(ROOT / "daemon"))
        from pandacea.sandbox.environments import build_environment

        build_environment(folder, REQUIREMENTS, _say)
    return folder


if __name__ == "__main__":
    steps = {"engine": engine, "base": base, "wheels": wheels, "image": image, "environment": environment}
    for wanted in sys.argv[1:] or ["all"]:
        for name, step in steps.items():
            if wanted in {name, "all"}:
                sys.stderr.write(f"{name}: {step() or 'ready'}\n")
