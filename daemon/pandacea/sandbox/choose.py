"""Which sandbox this machine gets, and why."""

from __future__ import annotations

from typing import Final

import aiodocker

from pandacea.errors import BadConfig, Broken
from pandacea.sandbox.bubblewrap import BubblewrapSandbox
from pandacea.sandbox.docker import DockerSandbox
from pandacea.sandbox.docker_start import ENGINE_ERRORS
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings

KINDS: Final = ("auto", "docker", "bubblewrap")


async def choose(
    kind: str, docker: DockerSettings, bubblewrap: BubblewrapSettings
) -> tuple[DockerSandbox | BubblewrapSandbox, str]:
    """Return a sandbox, not yet open, and one sentence that says why it is this one.

    `kind`: `docker`, `bubblewrap`, or `auto`: Docker where an engine answers and holds the image, else bubblewrap.

    Raises:
        BadConfig: `kind` is none of these.
    """
    if kind == "docker":
        return DockerSandbox(docker), "privacy.sandbox says docker"
    if kind == "bubblewrap":
        return BubblewrapSandbox(bubblewrap), "privacy.sandbox says bubblewrap"
    if kind != "auto":
        raise BadConfig(f"privacy.sandbox is {kind!r}; allowed are {', '.join(KINDS)}")
    try:
        await probe_engine(docker)
    except Broken as error:
        return BubblewrapSandbox(bubblewrap), f"bubblewrap, because {error.detail}"
    return DockerSandbox(docker), f"a container engine answers and holds the image {docker.image}"


async def probe_engine(settings: DockerSettings) -> None:
    """Raise Broken, with one sentence, unless an engine answers and holds the image."""
    try:
        engine = aiodocker.Docker(url=settings.engine_url)
    except ValueError as error:
        raise Broken(f"no container engine is configured ({error})") from error
    try:
        await _ask(engine, settings.image)
    finally:
        await engine.close()


async def _ask(engine: aiodocker.Docker, image: str) -> None:
    try:
        await engine.version()
    except ENGINE_ERRORS as error:
        raise Broken(f"no container engine answers ({error})") from error
    try:
        await engine.images.inspect(image)
    except ENGINE_ERRORS as error:
        raise Broken(f"the container engine does not hold the image {image}") from error
