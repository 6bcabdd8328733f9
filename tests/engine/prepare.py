"""Everything the sandbox tests need and may not find: an engine, the image and its base, the bubblewrap environment, a kernel.

`python tests/engine/prepare.py [engine|base|wheels|image|environment|kernel|all]` does it by hand. Every step looks first and is quick
when there is nothing to do. Nothing but the kernel is needed where a container registry answers and Docker runs already.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".engine"
BASE = "debian:bookworm-slim"
IMAGE = "pandacea/pysyft-datasite:latest"
REQUIREMENTS = ROOT / "daemon/pandacea/sandbox/environments/requirements.txt"
SYSTEMD = Path("/run/systemd/system")
"""Is there where systemd runs the machine's services."""
WITHOUT_NETWORK = ("--iptables=false", "--ip6tables=false", "--bridge=none")
"""Options of an engine whose containers have no network: none of the node's has, and building from .wheelhouse/ needs none."""
_START_SECONDS = 60


class CannotPrepareError(Exception):
    """Something is missing that this machine does not let us make."""


def run(*line: str, quiet: bool = False, folder: Path = ROOT) -> str:
    """Run a command in a folder and return its stdout."""
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError as error:
        raise CannotPrepareError(f"there is no command {line[0]} on this machine") from error
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


def install(what: str) -> None:
    """Install the Debian packages of one kind that are missing, as root; a plain user is told what to run."""
    run("sh", str(ROOT / ".ci" / "system-packages"), what)


def engine() -> None:
    """Make a Docker engine answer: install and start one where none does.

    An engine that was started here is left running, for the next run and for `make image`; what ends it is said.
    """
    if answers("docker", "version"):
        return
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        if os.environ.get(name):
            raise CannotPrepareError(
                f"no engine answers at {name}={os.environ[name]}; start it, or unset {name} for this machine's own"
            )
    install("engine")
    if answers("docker", "version"):
        return
    if os.geteuid() != 0:
        raise CannotPrepareError(
            "no container engine answers you; run: sudo systemctl start docker (without systemd: sudo dockerd), "
            "and, to be let in, from your next login on: sudo usermod -aG docker $USER"
        )
    start_engine()


def start_engine() -> None:
    """Start the installed engine, as the service it is where systemd runs; where no packet filter can be set, without a network."""
    if SYSTEMD.is_dir() and answers("systemctl", "start", "docker") and answers("docker", "version"):
        _say("the docker service was started and is left running; to end it: systemctl stop docker")
        return
    CACHE.mkdir(exist_ok=True)
    written = CACHE / "dockerd.log"
    for options in ((), WITHOUT_NETWORK):
        with written.open("ab") as log:
            process = subprocess.Popen(
                ["dockerd", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if answers("docker", "version"):
                _say(f"{' '.join(['dockerd', *options])} was started and is left running; to end it: kill {process.pid}")
                return
            time.sleep(0.2)
        process.terminate()
        process.wait()
    raise CannotPrepareError(f"dockerd did not start: {written.read_text(errors='replace')[-1000:]} (all of it: {written})")


def base() -> None:
    """Make the base image be there: pulled where a registry answers, else made with debootstrap."""
    if answers("docker", "image", "inspect", BASE) or answers("docker", "pull", BASE):
        return
    install("engine")
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
    version, machine = run("docker", "run", "--rm", "--network=none", BASE, "python3", "-c", _VERSION, quiet=True).split()
    folder.mkdir(exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", version]
    run(*pip, *platforms(machine), "-d", str(folder), "-r", str(REQUIREMENTS), quiet=True)
    stamp.touch()


def platforms(machine: str) -> list[str]:
    """Return pip's arguments for the wheels that Debian 12 can run on an architecture, by its name in platform.machine()."""
    tags = [*(f"manylinux_2_{glibc}" for glibc in (36, 34, 31, 28, 27, 26, 17)), "manylinux2014"]
    return [argument for tag in tags for argument in ("--platform", f"{tag}_{machine}")]


_VERSION = "import platform; print('.'.join(platform.python_version_tuple()[:2]), platform.machine())"


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


_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
"""What Debian's kernel must load before it can read files of the machine that emulates it."""


def kernel() -> Path:
    """Return a folder with Debian's kernel for this architecture: `vmlinuz`, `busybox`, and `modules/` in the order to load them.

    Downloaded and unpacked, never installed: this machine goes on starting with its own.
    """
    made = CACHE / "kernel"
    if made.exists():
        return made
    architecture = run("dpkg", "--print-architecture", quiet=True).strip()
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="kernel-") as name:
        scratch = Path(name)
        try:
            _download(architecture, scratch)
        except CannotPrepareError:
            if os.geteuid() != 0:
                raise
            run("apt-get", "update", quiet=True)  # its lists are missing or old
            _download(architecture, scratch)
        for package in scratch.glob("*.deb"):
            run("dpkg-deb", "--extract", str(package), "unpacked", quiet=True, folder=scratch)
        kept, unpacked = scratch / "kept", scratch / "unpacked"
        (kept / "modules").mkdir(parents=True)
        shutil.copy(next(unpacked.glob("boot/vmlinuz-*")), kept / "vmlinuz")
        shutil.copy(next(unpacked.glob("**/bin/busybox")), kept / "busybox")
        for number, module in enumerate(_modules(unpacked)):
            (kept / "modules" / f"{number:02}").write_bytes(module)
        kept.rename(made)
    return made


def _download(architecture: str, folder: Path) -> None:
    """Download the newest kernel's package and a busybox that needs no library."""
    depends = run("apt-cache", "depends", f"linux-image-{architecture}", quiet=True)
    newest = [line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line]
    if not newest:
        raise CannotPrepareError(f"apt knows no kernel linux-image-{architecture}; run: sudo apt-get update")
    run("apt-get", "download", newest[0], "busybox-static", quiet=True, folder=folder)


def _modules(unpacked: Path) -> list[bytes]:
    """Return the modules, each after those it depends on; what is not found is built into the kernel."""
    found = {path.name.partition(".")[0].replace("-", "_"): path for path in unpacked.glob("**/*.ko*")}
    loaded: dict[str, bytes] = {}

    def load(name: str) -> None:
        if name in loaded or name not in found:
            return
        content = found[name].read_bytes()
        if found[name].suffix == ".xz":
            content = lzma.decompress(content)
        depends = content.partition(b"\0depends=")[2].partition(b"\0")[0].decode()
        for other in filter(None, depends.split(",")):
            load(other.replace("-", "_"))
        loaded[name] = content

    for name in _MODULES:
        load(name)
    return list(loaded.values())


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def environment() -> Path:
    """Return a bubblewrap environment: the one PANDACEA_TEST_ENVIRONMENT names, else one built beneath .sandbox/."""
    named = os.environ.get("PANDACEA_TEST_ENVIRONMENT")
    if named:
        return Path(named)
    folder = ROOT / ".sandbox"
    install("node")
    if not (folder / "pandacea-environment.json").exists():
        sys.path.insert(0, str(ROOT / "daemon"))
        from pandacea.sandbox.environments.build import build_environment

        build_environment(folder, REQUIREMENTS, _say)
    return folder


if __name__ == "__main__":
    steps = {"engine": engine, "base": base, "wheels": wheels, "image": image, "environment": environment, "kernel": kernel}
    for wanted in sys.argv[1:] or ["all"]:
        for name, step in steps.items():
            if wanted in {name, "all"}:
                sys.stderr.write(f"{name}: {step() or 'ready'}\n")
