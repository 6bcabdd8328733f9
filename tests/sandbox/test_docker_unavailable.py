"""A machine without a usable container engine, in every state that one can be in: each is made here, whatever this machine has."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiodocker.docker
import pytest
import pytest_asyncio

from pandacea.errors import Broken
from pandacea.sandbox.bubblewrap.backend import BubblewrapSandbox
from pandacea.sandbox.docker.backend import DockerSandbox
from pandacea.sandbox.docker.engine import NoEngine, open_engine
from pandacea.sandbox.environments.build import Environment
from pandacea.sandbox.environments.image import add_to_image
from pandacea.sandbox.select_backend import select_backend
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings
from tests.engine.private import private_engine
from tests.prerequisites import ROOT, find_program

NOBODY = 65_534
PATIENCE = 2.0
ADVICE = "or set privacy.sandbox: bubblewrap"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No usual socket, no Docker context, no DOCKER_HOST; a hanging engine is given up soon."""
    monkeypatch.setattr(aiodocker.docker, "_sock_search_paths", [tmp_path / "docker.sock"])
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    for module in ("docker.engine", "docker.image"):
        monkeypatch.setattr(f"pandacea.sandbox.{module}.ANSWER_SECONDS", PATIENCE)


@pytest.fixture
def abandoned(tmp_path: Path) -> Path:
    """A usual socket whose engine was killed: the file is there, nobody serves it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
    return tmp_path / "docker.sock"


@pytest.fixture(params=["folder", "socket"])
def forbidden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A usual socket that is served and that this user may not open: itself, or the folder it is in."""
    folder = Path(tempfile.mkdtemp(prefix="pandacea-forbidden-"))
    path = folder / "docker.sock"
    monkeypatch.setattr(aiodocker.docker, "_sock_search_paths", [path])
    root = os.geteuid() == 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)
        folder.chmod(0 if request.param == "folder" else 0o711)
        if root:
            os.seteuid(NOBODY)
        try:
            yield path
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o700)
            shutil.rmtree(folder)


@pytest_asyncio.fixture
async def hanging(tmp_path: Path) -> AsyncIterator[Path]:
    """A usual socket that takes every connection and answers none."""
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(lambda _, writer: writers.append(writer), tmp_path / "docker.sock")
    yield tmp_path / "docker.sock"
    for writer in writers:
        writer.close()
    server.close()


async def expect(tmp_path: Path, pattern: str, *, url: str | None = None) -> None:
    """`auto` takes bubblewrap and says why; `docker` fails with the same words and says what to do; so does building an image."""
    docker = DockerSettings("some/image:1", tmp_path / "state", engine_url=url)
    sandbox, reason = await select_backend("auto", docker, BubblewrapSettings(tmp_path / "environment", tmp_path / "state"))
    assert isinstance(sandbox, BubblewrapSandbox)
    assert re.match("bubblewrap: no container engine, because .*" + pattern, reason), reason
    said = []
    with pytest.raises(NoEngine) as caught:
        await open_engine(url)
    said.append(str(caught.value))
    with pytest.raises(NoEngine) as caught:
        await add_to_image("some/image:1", Environment(tmp_path, "", "", "3.11.2", (), "sha256:00"), engine_url=url)
    said.append(str(caught.value))
    if os.access(tmp_path, os.W_OK, effective_ids=True):
        with pytest.raises(NoEngine) as caught:
            await DockerSandbox(docker).start()
        said.append(str(caught.value))
    for sentence in said:
        assert re.match("no container engine, because .*" + pattern, sentence), sentence
        assert ADVICE in sentence
        assert "Error" not in sentence
        assert "\n" not in sentence


async def test_no_engine_at_all(tmp_path: Path) -> None:
    """Neither a usual socket nor DOCKER_HOST: the library asserts; the operator reads what to install."""
    await expect(tmp_path, "none of the usual sockets .* is there and DOCKER_HOST is not set")


@pytest.mark.parametrize("address", ["foo", "http//x", "npipe:////./pipe/docker_engine", "ssh://nobody@127.0.0.1:1"])
@pytest.mark.parametrize("by", ["DOCKER_HOST", "privacy.docker_url"])
async def test_an_address_that_is_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, by: str) -> None:
    """The address is quoted."""
    if by == "DOCKER_HOST":
        monkeypatch.setenv("DOCKER_HOST", address)
    await expect(tmp_path, re.escape(repr(address)), url=None if by == "DOCKER_HOST" else address)


@pytest.mark.parametrize("address", ["http://[::bad", "unix://", "tcp://", "tcp://127.0.0.1:99999"])
async def test_an_address_that_leads_nowhere(tmp_path: Path, address: str) -> None:
    """The library takes it and fails at the first question."""
    await expect(tmp_path, re.escape(address) + " does not answer as one does", url=address)


async def test_a_docker_context_that_is_broken(tmp_path: Path) -> None:
    """A settings file of the docker command, cut off in the middle."""
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext":')
    await expect(tmp_path, "the Docker context cannot be used")


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    """The address was right once."""
    await expect(tmp_path, "the socket unix:///nowhere/docker.sock is not there", url="unix:///nowhere/docker.sock")


async def test_a_socket_that_nobody_serves(tmp_path: Path, abandoned: Path) -> None:
    """The engine was killed or is stopped."""
    await expect(tmp_path, f"nobody serves unix://{abandoned}: the engine is stopped")


async def test_a_socket_this_user_may_not_open(tmp_path: Path, forbidden: Path) -> None:
    """A plain user beside root's engine."""
    await expect(tmp_path, rf"the user \w+ may not use unix://{forbidden} \(permission denied\)")


async def test_an_engine_that_hangs(tmp_path: Path, hanging: Path) -> None:
    """Given up within seconds, although the library would wait for ever."""
    async with asyncio.timeout(20):
        await expect(tmp_path, rf"the one at unix://{hanging} does not answer within 2 s")


async def test_an_engine_that_speaks_something_else(tmp_path: Path) -> None:
    """A service of another kind at the address."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        writer.close()

    async with await asyncio.start_unix_server(greet, tmp_path / "docker.sock"):
        await expect(tmp_path, "does not answer as one does")


async def test_podman(tmp_path: Path) -> None:
    """A real one. It speaks Docker's language and refuses the options of a sandbox: `auto` must not take it and then fail."""
    where = f"unix://{tmp_path}/podman.sock"
    line = [
        find_program("podman", "podman"),
        "--root",
        f"{tmp_path}/root",
        "--runroot",
        f"{tmp_path}/run",
        "system",
        "service",
        "--time=0",
    ]
    process = await asyncio.create_subprocess_exec(
        *line, where, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while not (tmp_path / "podman.sock").is_socket():
            assert process.returncode is None
            await asyncio.sleep(0.05)
        await expect(tmp_path, rf"the one at {where} is Podman", url=where)
    finally:
        process.terminate()
        await process.wait()
        for mount in reversed(Path("/proc/mounts").read_text().splitlines()):
            if str(tmp_path) in mount:
                await asyncio.to_thread(subprocess.run, ["umount", mount.split()[1]], check=True)


async def test_an_engine_without_the_image(tmp_path: Path) -> None:
    """A real one, just installed: `auto` takes bubblewrap, `docker` says how to build the image."""
    with private_engine() as engine:
        docker = DockerSettings("some/image:1", tmp_path / "state", engine_url=engine.url)
        sandbox, reason = await select_backend("auto", docker, BubblewrapSettings(tmp_path / "environment", tmp_path / "state"))
        assert isinstance(sandbox, BubblewrapSandbox)
        assert reason == "bubblewrap: the container engine does not hold the image some/image:1"
        with pytest.raises(
            Broken, match=r"does not hold the image some/image:1; build it: docker build -f Dockerfile.pysyft -t some/image:1"
        ):
            await DockerSandbox(docker).start()


def test_no_adapter_opens_an_engine_by_itself() -> None:
    """One function does, so that every state above has one answer."""
    opened = [path for path in (ROOT / "daemon").rglob("*.py") if "aiodocker.Docker(" in path.read_text()]
    assert [path.name for path in opened] == ["engine.py"]
