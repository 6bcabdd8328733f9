"""What a container engine is asked before boxes are made: whether it knows the runtime, and which packages the image holds."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final

import aiodocker

from pandacea.errors import Broken
from pandacea.sandbox.docker.config import NODE_LABEL
from pandacea.sandbox.docker.engine import ANSWER_SECONDS, ENGINE_ERRORS
from pandacea.sandbox.environments.build import LOCK_FILE
from pandacea.sandbox.guest_files import ENVIRONMENT_FOLDER
from pandacea.sandbox.settings import DockerSettings

_CONTAINERD_PREFIX: Final = "io.containerd."  # newer engines take such names without having been told of them
_CACHE_FILE: Final = "image-packages.json"
_LOCK_BYTES: Final = 1 << 20
_NOT_FOUND: Final = 404


async def require_runtime(engine: aiodocker.Docker, wanted: str | None) -> None:
    """Raise Broken, with what the engine knows, when it does not know the wanted runtime (None: its default)."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            known = sorted((await engine.system.info()).get("Runtimes") or ())
    except ENGINE_ERRORS as error:
        raise Broken(f"the container engine does not say which runtimes it knows: {error}") from error
    if wanted is not None and wanted not in known and not wanted.startswith(_CONTAINERD_PREFIX):
        raise Broken(
            f"the container engine knows no runtime {wanted!r} (it knows {', '.join(known)}); register it in the engine's "
            "daemon.json and restart the engine, or remove privacy.docker_runtime"
        )


async def find_packages(engine: aiodocker.Docker, image: str, settings: DockerSettings) -> tuple[str, ...]:
    """Return the packages a script finds, `name==version`, sorted; none where no lock tells.

    Raises:
        Broken: the engine did not let the image be read.
    """
    if settings.environment is not None:
        lock = settings.environment / LOCK_FILE
        return parse_lock_packages(lock.read_bytes() if lock.exists() else b"")
    try:
        return await read_image_packages(engine, image, settings.node_label, settings.state_dir)
    except ENGINE_ERRORS as error:
        raise Broken(f"the container engine does not let its image {settings.image} be read: {error}") from error


async def read_image_packages(engine: aiodocker.Docker, image: str, node_label: str, state_dir: Path) -> tuple[str, ...]:
    """Return `name==version` lines, sorted; empty for an image whose build left no lock. Kept in `state_dir` by image id.

    Raises:
        aiodocker.DockerError, aiohttp.ClientError: the engine did not answer.
    """
    kept = state_dir / _CACHE_FILE
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["image"] == image:
            return tuple(known["packages"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not read yet, or spoilt: read again
    packages = parse_lock_packages(await read_image_lock(engine, image, node_label))
    fresh = kept.with_suffix(".new")
    fresh.write_text(json.dumps({"image": image, "packages": packages}), encoding="utf-8")
    os.replace(fresh, kept)  # noqa: PTH105 - atomic
    return packages


def parse_lock_packages(lock: bytes) -> tuple[str, ...]:
    """Return a lock's packages; empty when it is none."""
    try:
        packages = json.loads(lock)["packages"]
        return tuple(sorted(str(line) for line in packages))
    except (ValueError, KeyError, TypeError):
        return ()


async def read_image_lock(engine: aiodocker.Docker, image: str, node_label: str) -> bytes:
    """Copy the lock out of a container that is never started; a crash in between leaves it to the sweep by label."""
    config: dict[str, Any] = {"Image": image, "Cmd": ["true"], "NetworkDisabled": True, "Labels": {NODE_LABEL: node_label}}
    container = await engine.containers.create(config)
    try:
        with await container.get_archive(f"{ENVIRONMENT_FOLDER}/{LOCK_FILE}") as archive:
            file = archive.extractfile(LOCK_FILE)
            return b"" if file is None else file.read(_LOCK_BYTES)
    except aiodocker.DockerError as error:
        if error.status == _NOT_FOUND:  # not an image of ours
            return b""
        raise
    finally:
        await container.delete(force=True, v=True)
