"""What the node asks of a container engine at start: the image's packages, and whether it knows the runtime."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiodocker
import pytest

from pandacea.errors import Broken, Unavailable
from pandacea.sandbox.backend import InstanceShape
from pandacea.sandbox.docker.backend import DockerSandbox
from pandacea.sandbox.docker.image import parse_lock, read_image_contents
from pandacea.sandbox.settings import DockerSettings, PoolSettings
from tests.engine import prepare
from tests.run_id import instance_name
from tests.sandbox.harness import LIMITS
from tests.sandbox.leftovers import containers

SLOWEST = 1.0
"""Seconds in which an engine has certainly made a container that it was asked for."""


@pytest.fixture
def settings(image: str, tmp_path: Path) -> DockerSettings:
    """A node of this test's own, without warm instances."""
    return DockerSettings(
        image, tmp_path / "state", instance_name(f"engine-{tmp_path.name}"), pool=PoolSettings(size=0), self_test=False
    )


async def test_the_packages_of_the_image_are_told(settings: DockerSettings) -> None:
    """Every package at its version, as a script in the image finds them."""
    sandbox = DockerSandbox(settings)
    identity = await sandbox.start()
    await sandbox.stop()
    pip = ["docker", "run", "--rm", "--network=none", settings.image, "python3", "-m", "pip", "list", "--format=json"]
    listed = json.loads(subprocess.run(pip, capture_output=True, text=True, check=True).stdout)
    assert {line.split("==")[0] for line in identity.packages} >= {"torch", "pandas", "scikit-learn", "syft"}
    versions = {
        row["name"].lower().replace("_", "-"): row["version"] for row in listed if row["name"] not in {"pip", "setuptools", "wheel"}
    }
    assert dict(line.split("==") for line in identity.packages) == versions


async def test_an_image_is_read_once(settings: DockerSettings) -> None:
    """Kept by the image's id: the second start asks the engine for nothing, another image is read; no container is left."""
    settings.state_dir.mkdir()
    async with aiodocker.Docker() as engine:
        ids = [str((await engine.images.inspect(name))["Id"]) for name in (settings.image, prepare.BASE)]
        first = await read_image_contents(engine, ids[0], settings.node_label, settings.state_dir)
    closed = engine  # whoever asks it now fails
    assert await read_image_contents(closed, ids[0], settings.node_label, settings.state_dir) == first
    async with aiodocker.Docker() as engine:
        assert await read_image_contents(engine, ids[1], settings.node_label, settings.state_dir) == ((), ()), (
            "Debian alone carries no lock"
        )
        assert await read_image_contents(engine, ids[0], settings.node_label, settings.state_dir) == first
    assert containers(settings.node_label) == []


async def test_an_image_without_a_lock_is_said(settings: DockerSettings) -> None:
    """It may run scripts; what it holds is not published, and the operator reads why."""
    sandbox = DockerSandbox(replace(settings, image=prepare.BASE))
    identity = await sandbox.start()
    await sandbox.stop()
    assert identity.packages == ()
    assert any("pandacea-environment.json" in warning for warning in sandbox.warnings)


@pytest.mark.parametrize("lock", [b"", b"[]", b"{}", b"\xff", b'{"packages": 7}'])
def test_a_spoilt_lock_names_nothing(lock: bytes) -> None:
    """Whatever stands in the file."""
    assert parse_lock(lock) == ((), ())


async def test_an_unknown_runtime_is_named_at_start(settings: DockerSettings) -> None:
    """The engine's own list stands beside it, and what to do."""
    sandbox = DockerSandbox(replace(settings, runtime="no-such-runtime"))
    with pytest.raises(Broken, match=r"knows no runtime 'no-such-runtime' \(it knows .*runc.*\).*privacy\.docker_runtime"):
        await sandbox.start()
    await sandbox.stop()


@asynccontextmanager
async def watched(asked: asyncio.Event) -> AsyncIterator[str]:
    """The engine through a relay that tells when it was asked to make a container, and does not take the question back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await connect_to_engine()

        async def answer() -> None:
            while data := await from_engine.read(65536):
                writer.write(data)

        answering = asyncio.create_task(answer())
        try:
            while data := await reader.read(65536):
                to_engine.write(data)
                if b"/containers/create?name=" in data:
                    asked.set()
            await asyncio.sleep(SLOWEST)
        finally:
            answering.cancel()
            to_engine.close()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def connect_to_engine() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Dial the engine that Docker's own client asks."""
    line = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    url = urlsplit(subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip())
    if url.scheme == "unix":
        return await asyncio.open_unix_connection(url.path)
    return await asyncio.open_connection(url.hostname, url.port)


async def test_a_box_given_up_while_the_engine_makes_it_leaves_no_container(settings: DockerSettings) -> None:
    """However little of its making is done: the container that the engine makes afterwards is removed, not left until the next start."""
    asked = asyncio.Event()
    async with watched(asked) as url:
        sandbox = DockerSandbox(replace(settings, engine_url=url))
        await sandbox.start()
        try:
            for milliseconds in range(0, 40, 4):
                asked.clear()
                making = asyncio.create_task(sandbox.backend.create_instance(InstanceShape.from_limits(LIMITS), (), 30.0))
                await asked.wait()
                await asyncio.sleep(milliseconds / 1000)
                making.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await making
            await asyncio.sleep(SLOWEST)
            assert containers(settings.node_label) == []
        finally:
            await sandbox.stop()


async def test_a_box_that_is_not_ready_in_time_leaves_no_container(settings: DockerSettings) -> None:
    """As one that was cancelled."""
    sandbox = DockerSandbox(settings)
    await sandbox.start()
    try:
        with pytest.raises(Unavailable, match=r"not ready within 0\.01 s"):
            await sandbox.backend.create_instance(InstanceShape.from_limits(LIMITS), (), 0.01)
        await asyncio.sleep(SLOWEST)
        assert containers(settings.node_label) == []
    finally:
        await sandbox.stop()
