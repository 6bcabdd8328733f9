"""What the node reads of an image before it creates sandboxes: its id and the packages it holds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final, NamedTuple

import aiodocker

from pandacea.errors import Broken
from pandacea.files.durable import replace_file
from pandacea.sandbox.docker.config import NODE_LABEL
from pandacea.sandbox.docker.engine import ANSWER_SECONDS, ENGINE_ERRORS
from pandacea.sandbox.environments.build import LOCK_FILE
from pandacea.sandbox.guest_files import ENVIRONMENT_FOLDER
from pandacea.sandbox.settings import DockerSettings
from pandacea_sdk.protocol.json_types import JsonObject

_CACHE_FILE: Final = "image-contents.json"
_LOCK_BYTES: Final = 1 << 20
_NOT_FOUND: Final = 404


class ImageContents(NamedTuple):
    """What a lock names: sorted `name==version` lines, and the top-level modules that they bring. Empty: not known."""

    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


async def find_image(engine: aiodocker.Docker, image: str) -> str:
    """Return the id of an image by its name. Raises Broken, with the command that builds it, unless the engine holds it."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return str((await engine.images.inspect(image))["Id"])
    except TimeoutError as error:
        raise Broken(
            f"the container engine does not say within {ANSWER_SECONDS:g} s whether it holds the image {image}", remedy="restart it"
        ) from error
    except ENGINE_ERRORS as error:
        raise Broken(
            f"the container engine does not hold the image {image}",
            remedy=f"build it: docker build -f Dockerfile.pysyft -t {image} .",
        ) from error


async def find_contents(engine: aiodocker.Docker, image: str, settings: DockerSettings) -> ImageContents:
    """Return the packages and modules that a script finds; empty where there is no lock.

    Raises:
        Broken: the image could not be read.
    """
    if settings.environment is not None:
        lock = settings.environment / LOCK_FILE
        return parse_lock(lock.read_bytes() if lock.exists() else b"")
    try:
        return await read_image_contents(engine, image, settings.node_label, settings.state_dir)
    except ENGINE_ERRORS as error:
        raise Broken(f"the container engine failed to read the image {settings.image}: {error}; restart it") from error


async def read_image_contents(engine: aiodocker.Docker, image: str, node_label: str, state_dir: Path) -> ImageContents:
    """Return an image's packages and modules; empty if its build left no lock. Cached in `state_dir` by image id.

    Raises:
        aiodocker.DockerError, aiohttp.ClientError: the engine did not answer.
    """
    cache = state_dir / _CACHE_FILE
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
        if known["image"] == image:
            return ImageContents(tuple(known["packages"]), tuple(known["modules"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not read yet, or the cache is damaged: read the image
    contents = parse_lock(await read_image_lock(engine, image, node_label))
    replace_file(cache, json.dumps({"image": image, **contents._asdict()}).encode())
    return contents


def parse_lock(lock: bytes) -> ImageContents:
    """Return the packages and modules of a lock; empty when it is not a lock. Locks of earlier builds name no modules."""
    try:
        found = json.loads(lock)
        packages = tuple(sorted(str(line) for line in found["packages"]))
        return ImageContents(packages, tuple(sorted(str(name) for name in found.get("modules", ()))))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ImageContents()


async def read_image_lock(engine: aiodocker.Docker, image: str, node_label: str) -> bytes:
    """Copy the lock out of a container that is never started; if the node crashes meanwhile, the sweep at the next start removes it."""
    config: JsonObject = {"Image": image, "Cmd": ["true"], "NetworkDisabled": True, "Labels": {NODE_LABEL: node_label}}
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
