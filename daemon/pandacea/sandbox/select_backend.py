"""Which sandbox this machine gets, and why."""

from __future__ import annotations

import asyncio
from typing import Final

from pandacea.errors import BadConfig, Broken
from pandacea.sandbox.bubblewrap.backend import BubblewrapSandbox
from pandacea.sandbox.docker.backend import DockerSandbox
from pandacea.sandbox.docker.engine import ANSWER_SECONDS, ENGINE_ERRORS, open_engine
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings

BACKENDS: Final = ("auto", "docker", "bubblewrap")


async def select_backend(
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
        raise BadConfig(f"privacy.sandbox is {kind!r}; allowed are {', '.join(BACKENDS)}")
    try:
        await require_image(docker)
    except Broken as error:
        return BubblewrapSandbox(bubblewrap), f"bubblewrap: {error.problem}"
    return DockerSandbox(docker), f"a container engine answers and holds the image {docker.image}"


async def require_image(settings: DockerSettings) -> None:
    """Raise Broken, with one sentence, unless an engine answers and holds the image."""
    engine = await open_engine(settings.engine_url)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await engine.images.inspect(settings.image)
    except TimeoutError as error:
        raise Broken(f"the container engine does not say within {ANSWER_SECONDS:g} s whether it holds {settings.image}") from error
    except ENGINE_ERRORS as error:
        raise Broken(f"the container engine does not hold the image {settings.image}") from error
    finally:
        await engine.close()
