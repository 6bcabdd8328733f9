"""Builds an image with an environment's packages on top of an older image, which stays: leases and replays may still need it."""

from __future__ import annotations

import json
import platform
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final

import aiodocker

from pandacea.errors import Broken
from pandacea.sandbox.docker.engine import ENGINE_ERRORS, open_engine
from pandacea.sandbox.docker.image import read_image_lock
from pandacea.sandbox.environments import lock as lock_script
from pandacea.sandbox.environments.build import LOCK_FILE, Environment, public_pins
from pandacea.sandbox.guest_files import ENVIRONMENT_FOLDER
from pandacea.sandbox.settings import GUEST_UID
from pandacea_sdk.protocol.json_types import JsonObject

_GLIBC_MINORS: Final = (36, 34, 31, 28, 27, 17)
"""Minor versions N of manylinux_2_N wheels that Debian 12 and later run, newest first."""
_PIP_SECONDS: Final = 3600
_WHEELS: Final = "/build"
_INSTALL_SCRIPT: Final = f"""
set -e
cd {ENVIRONMENT_FOLDER}
bin/python -m pip install --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check {_WHEELS}/*.whl
bin/python -m compileall -q -j 0 lib > /dev/null 2>&1 || true
bin/python {_WHEELS}/lock.py > {LOCK_FILE}
rm -r {_WHEELS}
"""
_CONTAINER_LABEL: Final = "environment-add"
"""In the names and labels of this command's containers."""


async def add_to_image(
    image: str, environment: Environment, *, engine_url: str | None = None, progress: Callable[[str], None] = print
) -> str:
    """Build an image with exactly the environment's packages and return its name: `image`'s, tagged with the lock's digest.

    `image` itself is returned when it holds them already. The environment's pip downloads the wheels; they are installed in a container
    without network, which is then committed.

    Raises:
        Broken: no engine answers, `image` was not built from Dockerfile.pysyft or holds other versions, or a package has no wheel for
            its Python.
    """
    name = f"{_image_repository(image)}:{environment.identity.removeprefix('sha256:')[:12]}"
    engine = await open_engine(engine_url)
    try:
        async with engine:
            missing, python = _missing_packages(image, environment, await read_image_lock(engine, image, _CONTAINER_LABEL))
            if not missing:
                return image
            progress(f"Building {name}: {len(missing)} packages more than {image}")
            with tempfile.TemporaryDirectory(prefix="pandacea-environment-") as scratch:
                _download_wheels(environment, missing, python, Path(scratch))
                with _pack_wheels(Path(scratch)) as archive:
                    await _install_and_commit(engine, image, name, archive)
            built = set(_lock_pins(await read_image_lock(engine, name, _CONTAINER_LABEL)))
    except ENGINE_ERRORS as error:
        raise Broken(f"the container engine did not build {name}: {error}") from error
    wrong = built ^ set(public_pins(environment.packages))
    if wrong:
        raise Broken(f"{name} was built and differs from {environment.folder}: {', '.join(sorted(wrong))}; do not use it")
    return name


def _image_repository(image: str) -> str:
    """Return an image's name without tag and digest; the port of a registry's host stays."""
    path, _, last = image.partition("@")[0].rpartition("/")
    return f"{path}/{last.partition(':')[0]}".lstrip("/")


def _lock_pins(lock: bytes) -> list[str]:
    return public_pins(json.loads(lock)["packages"])


def _missing_packages(image: str, environment: Environment, lock: bytes) -> tuple[list[str], str]:
    """Return the pins that the image lacks, and its Python's version."""
    try:
        there, python = _lock_pins(lock), str(json.loads(lock)["python"])
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(f"{image} carries no lock of its packages; build it from Dockerfile.pysyft first") from error
    other = sorted(set(there) - set(public_pins(environment.packages)))
    if other:
        raise Broken(
            f"{image} and {environment.folder} have different packages ({', '.join(other[:5])}); build both from one list first"
        )
    return sorted(set(public_pins(environment.packages)) - set(there)), python


def _download_wheels(environment: Environment, packages: Sequence[str], python: str, folder: Path) -> None:
    """Download one wheel of each package for the image's Python."""
    platforms = [f"manylinux_2_{minor}_{platform.machine()}" for minor in _GLIBC_MINORS] + [f"manylinux2014_{platform.machine()}"]
    line = [
        str(environment.folder / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "download",
        "--quiet",
    ]
    line += ["--no-deps", "--only-binary=:all:", "--python-version", ".".join(python.split(".")[:2])]
    line += [word for tag in platforms for word in ("--platform", tag)]
    done = subprocess.run(
        [*line, "--dest", str(folder), *packages], check=False, capture_output=True, text=True, timeout=_PIP_SECONDS
    )
    if done.returncode != 0:
        raise Broken(f"no wheels of {', '.join(packages)} for the image's Python {python}: {done.stderr.strip()[-2000:]}")


def _pack_wheels(wheels: Path) -> IO[bytes]:
    """Return a tar of the wheels and of the program that writes the lock, in an unnamed temporary file."""
    raw = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.add(wheels, _WHEELS)
        archive.add(lock_script.__file__, f"{_WHEELS}/lock.py")
    raw.seek(0)
    return raw


async def _install_and_commit(engine: aiodocker.Docker, image: str, name: str, archive: IO[bytes]) -> None:
    """Install the packages in a container without network and commit it. Raises Broken with pip's output."""
    config: JsonObject = {
        "Image": image,
        "User": "0:0",
        "Cmd": ["/bin/sh", "-c", _INSTALL_SCRIPT],
        "HostConfig": {"NetworkMode": "none"},
    }
    container = await engine.containers.create(config, name=f"pandacea-{_CONTAINER_LABEL}-{uuid.uuid4().hex[:12]}")
    try:
        await container.put_archive("/", archive)  # type: ignore[no-untyped-call]  # aiodocker declares no types here
        await container.start()
        if (await container.wait())["StatusCode"] != 0:
            said = "".join(await container.log(stdout=True, stderr=True))
            raise Broken(f"the packages could not be installed in {image}: {said.strip()[-2000:]}")
        repository, _, tag = name.rpartition(":")
        changes = [f"USER {GUEST_UID}:{GUEST_UID}", 'CMD ["python3", "--version"]']
        await container.commit(repository=repository, tag=tag, changes=changes)
    finally:
        await container.delete(force=True, v=True)
