"""Opens the container engine, or raises one error whose sentence says why there is none and what to run."""

from __future__ import annotations

import asyncio
import errno
import getpass
import os
from typing import Final

import aiodocker
import aiohttp

from pandacea.errors import Broken

ENGINE_ERRORS: Final = (aiodocker.DockerError, aiohttp.ClientError, OSError, TimeoutError)
"""What an opened engine may raise later: its refusals, and every form of a broken connection."""
ANSWER_SECONDS: Final = 10.0
"""How long one request at the start may take; the library itself has no timeout."""

_CONTAINERD_PREFIX: Final = "io.containerd."
"""Newer engines accept runtimes of such names without listing them."""
_PODMAN: Final = "Podman Engine"
_START: Final = "start Docker (sudo systemctl start docker)"


class NoEngine(Broken):
    """There is no usable container engine."""

    code = "no-engine"

    def __init__(self, reason: str, remedy: str) -> None:
        """`reason`: what is wrong, on which address. `remedy`: what to run; other settings are named after it."""
        super().__init__(
            f"no container engine, because {reason}",
            remedy=f"{remedy}, set privacy.docker_url, or set privacy.sandbox: bubblewrap",
        )


async def open_engine(url: str | None = None) -> aiodocker.Docker:
    """Open the engine at `url` (None: the Docker context's, DOCKER_HOST's or the usual socket) and wait for one answer.

    The caller closes it. Whatever the library raises (assertions, too) becomes the one error below.

    Raises:
        NoEngine: none is configured, the address is invalid, nothing serves it, this user may not open it, or it hangs.
    """
    try:
        engine = aiodocker.Docker(url=url)
    except Exception as error:
        raise _not_configured(url, error) from error
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            version = await engine.version()
    except BaseException as error:
        await engine.close()
        if not isinstance(error, Exception):
            raise
        raise _not_answering(url or os.environ.get("DOCKER_HOST") or _address(engine), error) from error
    if any(part.get("Name") == _PODMAN for part in version.get("Components") or ()):
        await engine.close()
        raise NoEngine(
            f"the one at {_address(engine)} is Podman, which refuses what a sandbox needs (seccomp profile, tmpfs options)",
            "use Docker's own (sudo apt-get install docker.io)",
        )
    return engine


async def require_runtime(engine: aiodocker.Docker, wanted: str | None) -> None:
    """Raise Broken, with the runtimes that the engine knows, unless it knows the wanted one (None: its default)."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            known = sorted((await engine.system.info()).get("Runtimes") or ())
    except ENGINE_ERRORS as error:
        raise Broken(f"the container engine does not say which runtimes it knows: {error}; restart it") from error
    if wanted is not None and wanted not in known and not wanted.startswith(_CONTAINERD_PREFIX):
        raise Broken(
            f"the container engine knows no runtime {wanted!r} (it knows {', '.join(known)}); register it in the engine's "
            "daemon.json and restart the engine, or remove privacy.docker_runtime"
        )


def _not_configured(url: str | None, error: Exception) -> NoEngine:
    if isinstance(error, PermissionError):
        return _not_allowed(f"unix://{error.filename}")
    named = url or os.environ.get("DOCKER_HOST")
    if named:
        return NoEngine(f"{named!r} is not the address of one ({_words(error)})", "name one as DOCKER_HOST=unix:///run/docker.sock")
    if isinstance(error, AssertionError | ValueError):  # which of them depends on the library's version
        return NoEngine(
            "none of the usual sockets (/run/docker.sock, ~/.docker/run/docker.sock) is there and DOCKER_HOST is not set",
            "install Docker and start it (sudo apt-get install docker.io)",
        )
    return NoEngine(f"the Docker context cannot be used ({_words(error)})", "repair it (docker context use default)")


def _not_answering(address: str, error: Exception) -> NoEngine:
    if isinstance(error, TimeoutError):
        return NoEngine(
            f"the one at {address} does not answer within {ANSWER_SECONDS:g} s", "restart it (sudo systemctl restart docker)"
        )
    number = _errno(error)
    if number == errno.ENOENT:
        return NoEngine(f"the socket {address} is not there", _START)
    if number == errno.ECONNREFUSED:
        return NoEngine(f"nobody serves {address}: the engine is stopped", _START)
    if number in {errno.EACCES, errno.EPERM}:
        return _not_allowed(address)
    return NoEngine(f"{address} does not answer as one does ({_words(error)})", _START)


def _not_allowed(address: str) -> NoEngine:
    return NoEngine(
        f"the user {_user()} may not use {address} (permission denied)",
        "join its group (sudo usermod -aG docker $USER, then log in again)",
    )


def _errno(error: BaseException | None) -> int | None:
    """Return the system's error number from the causes of an error; None where no cause has one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _address(engine: aiodocker.Docker) -> str:
    return str(getattr(engine, "_connection_info", engine.docker_host))


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name; which of them depends on Python's version
        return str(os.geteuid())
