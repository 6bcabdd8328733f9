"""Selects the sandbox backend that this machine gets, and says why."""

from __future__ import annotations

from typing import Final

from pandacea.errors import BadConfig, Broken
from pandacea.sandbox.bubblewrap.backend import BubblewrapSandbox
from pandacea.sandbox.docker.backend import DockerSandbox
from pandacea.sandbox.docker.engine import open_engine
from pandacea.sandbox.docker.image import find_image
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings

BACKENDS: Final = ("auto", "docker", "bubblewrap")


async def select_backend(
    kind: str, docker: DockerSettings, bubblewrap: BubblewrapSettings
) -> tuple[DockerSandbox | BubblewrapSandbox, str]:
    """Return a sandbox that is not started yet, and one sentence that says why it was selected.

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
        async with await open_engine(docker.engine_url) as engine:
            await find_image(engine, docker.image)
    except Broken as error:
        return BubblewrapSandbox(bubblewrap), f"bubblewrap: {error.problem}"
    return DockerSandbox(docker), f"a container engine answers and holds the image {docker.image}"
