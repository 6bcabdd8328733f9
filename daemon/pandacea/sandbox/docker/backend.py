"""The Docker backend: one container for each instance, through the engine's API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import aiodocker

from pandacea.errors import Unavailable
from pandacea.flows.ports import SandboxIdentity
from pandacea.sandbox.backend import InstanceShape
from pandacea.sandbox.docker.config import GUEST_SOCKET, NODE_LABEL, container_config
from pandacea.sandbox.docker.engine import ENGINE_ERRORS, open_engine, require_runtime
from pandacea.sandbox.docker.events import EngineEvents
from pandacea.sandbox.docker.image import find_contents, find_image
from pandacea.sandbox.environments.build import LOCK_FILE
from pandacea.sandbox.guest_files import GuestProgram, stage_guest
from pandacea.sandbox.readonly_open import InputOpener, open_for_guest
from pandacea.sandbox.service import SandboxService
from pandacea.sandbox.session import receive_hello
from pandacea.sandbox.settings import DockerSettings
from pandacea.sandbox.uids import InstanceUid, UidRange

T = TypeVar("T")

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED, unix(7)
_SHUTDOWN_SECONDS: Final = 3.0
"""An engine that shuts down ends its containers first and its connections within this time."""
_REMOVAL_SECONDS: Final = 30.0
_MAX_SWEEPS: Final = 3
_CONFLICT: Final = 409
_FAILED: Final = 500


class DockerInstance:
    """One container whose PID 1 is the guest; see `SandboxInstance`."""

    watched_memory_bytes = 0

    def __init__(self, backend: DockerBackend, name: str, sock: socket.socket, uid: InstanceUid) -> None:
        self._backend, self.name, self.sock, self._uid = backend, name, sock, uid
        self.out_of_memory = asyncio.Event()
        self._destroyed = False

    async def host_failure(self) -> str | None:
        return await self._backend.find_engine_failure(self)

    async def destroy(self) -> None:
        """Have the engine kill and remove the container; if the engine is down, the sweep at the next start does it."""
        if self._destroyed:
            return
        self._destroyed = True
        self.sock.close()
        await self._backend.remove_container(self.name)
        self._uid.release()


class DockerBackend:
    """Creates containers; see `SandboxBackend`."""

    def __init__(self, settings: DockerSettings) -> None:
        self._settings = settings
        self._engine: aiodocker.Docker | None = None
        self._events: EngineEvents | None = None
        self._image = ""
        self._guest: GuestProgram | None = None
        self._instances: dict[str, DockerInstance] = {}
        self._uids = UidRange(settings.uid_base)
        self._opener: InputOpener | None = None
        self.warnings: list[str] = []

    @property
    def preload_is_free(self) -> bool:
        return False

    @property
    def uids(self) -> range:
        return self._uids.numbers

    @property
    def leaves_no_access_time(self) -> bool:
        return self._opener is not None and self._opener.read_only

    async def open(self) -> SandboxIdentity:
        settings = self._settings
        self._uids.require_unused()
        sockets = settings.state_dir / "boxes"
        sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._guest = stage_guest(settings.state_dir, settings.pool.limits.memory_bytes)
        self._engine = await open_engine(settings.engine_url)
        self._image = await find_image(self._engine, settings.image)
        await require_runtime(self._engine, settings.runtime)
        await self.sweep_containers()
        for left in sockets.iterdir():
            shutil.rmtree(left)
        self._events = EngineEvents(self._engine, settings.node_label, self._on_oom)
        self._events.start()
        contents = await find_contents(self._engine, self._image, settings)
        if not contents.packages:
            self.warnings.append(f"{settings.image} carries no {LOCK_FILE}: which packages a script finds is not published")
        self._opener = InputOpener()
        if not self._opener.read_only:
            self.warnings.append(
                f"no read-only mount can be made here ({self._opener.reason}): a script that opens its table again moves the file's "
                "access time, which a later script can read"
            )
        return SandboxIdentity("docker", self._image, self._guest.digest, contents.packages, contents.modules)

    def open_input(self, path: Path) -> int:
        assert self._opener is not None, "open() comes first"
        return open_for_guest(path, self.uids, self._opener)

    async def create_instance(self, shape: InstanceShape, preload: tuple[str, ...], boot_seconds: float) -> DockerInstance:
        name = uuid.uuid4().hex[:16]
        uid = self._uids.claim()
        try:
            sock = await self._boot_or_remove(shape, preload, name, uid.number, boot_seconds)
        except BaseException:
            uid.release()
            raise
        instance = DockerInstance(self, name, sock, uid)
        self._instances[name] = instance
        return instance

    async def _boot_or_remove(
        self, shape: InstanceShape, preload: tuple[str, ...], name: str, uid: int, boot_seconds: float
    ) -> socket.socket:
        """Start a container and return the connection of its guest; when that fails, remove what was made of it."""
        folder = self._settings.state_dir / "boxes" / name
        try:
            async with asyncio.timeout(boot_seconds):
                return await self._boot(shape, preload, name, folder, uid)
        except TimeoutError as error:
            await self.remove_container(name)
            raise Unavailable(f"the guest was not ready within {boot_seconds:g} s") from error
        except ENGINE_ERRORS as error:
            await self.remove_container(name)
            raise Unavailable(f"the container engine did not start a sandbox: {error}") from error
        except BaseException:
            await asyncio.shield(self.remove_container(name))
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # the listener is closed: nobody can connect to it again

    async def _boot(self, shape: InstanceShape, preload: tuple[str, ...], name: str, folder: Path, uid: int) -> socket.socket:
        assert self._engine is not None
        assert self._events is not None
        assert self._guest is not None
        folder.mkdir(mode=0o711)
        folder.chmod(0o711)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            _listen(listener, folder, uid)
            config = container_config(self._settings, self._image, shape, preload, self._guest.folder, folder, name, uid)
            created = await _wait_for_answer(self._engine.containers.create(config, name=self._container_name(name)))
            accepted = asyncio.create_task(asyncio.get_running_loop().sock_accept(listener))
            gone = asyncio.create_task(self._events.wait_ended(name))
            try:
                await _wait_for_answer(created.start())
                pid = int((await created.show())["State"]["Pid"])
                await asyncio.wait({accepted, gone}, return_when=asyncio.FIRST_COMPLETED)
            except BaseException:
                await _cancel_and_wait(accepted, gone)
                if not accepted.cancelled() and accepted.exception() is None:
                    accepted.result()[0].close()
                raise
            await _cancel_and_wait(accepted, gone)
            if accepted.cancelled():
                raise Unavailable("the container ended before its guest connected; does the image hold python3?")
        sock, _ = accepted.result()
        try:
            peer = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
            if peer not in {pid, 0}:
                raise Unavailable(f"process {peer} connected instead of the guest's PID 1, {pid}")
            await receive_hello(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _container_name(self, name: str) -> str:
        return f"pandacea-{self._settings.node_label}-{name}"

    def _on_oom(self, name: str) -> None:
        instance = self._instances.get(name)
        if instance is not None:
            instance.out_of_memory.set()

    async def find_engine_failure(self, instance: DockerInstance) -> str | None:
        """Return the engine's own failure since an instance was created, if there was one."""
        assert self._engine is not None
        assert self._events is not None
        if await self._events.connection_lost_since(instance.name, _SHUTDOWN_SECONDS):
            return "The container engine was restarted or failed while the script ran."
        try:
            await self._engine.version()
        except ENGINE_ERRORS as error:
            return f"The container engine does not answer any more: {error}"
        return None

    async def remove_container(self, name: str) -> None:
        """Kill and remove an instance's container; it is gone when this returns, unless the engine is down."""
        assert self._engine is not None
        self._instances.pop(name, None)
        if self._events is not None:
            self._events.forget(name)
        with contextlib.suppress(*ENGINE_ERRORS):  # gone already, or the engine is down: swept at the next start
            await _remove_container(self._engine.containers.container(self._container_name(name)))

    async def sweep_containers(self) -> None:
        """Remove every container with this node's label until the engine lists none: it lists one that it was starting only later."""
        assert self._engine is not None
        filters = json.dumps({"label": [f"{NODE_LABEL}={self._settings.node_label}"]})
        for _ in range(_MAX_SWEEPS):
            left = await self._engine.containers.list(all=True, filters=filters)
            if not left:
                return
            for found in left:
                # It was removed by itself meanwhile, or is stuck in the engine.
                with contextlib.suppress(aiodocker.DockerError, TimeoutError):
                    await _remove_container(found)

    async def close(self) -> None:
        for instance in list(self._instances.values()):
            await instance.destroy()
        if self._opener is not None:
            self._opener.close()
            self._opener = None
        if self._events is not None:
            await self._events.stop()
            self._events = None
        if self._engine is not None:
            with contextlib.suppress(*ENGINE_ERRORS):
                async with asyncio.timeout(_REMOVAL_SECONDS):  # one that hangs is swept at the next start
                    await self.sweep_containers()
            await self._engine.close()
            self._engine = None


async def _wait_for_answer(question: Coroutine[Any, Any, T]) -> T:
    """Await the engine's answer even when cancelled: it continues to create what it was asked for, which can only then be removed."""
    task = asyncio.ensure_future(question)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_REMOVAL_SECONDS)
        if not task.cancel() and not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it: nobody waits for this answer any more
        raise


async def _cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end: until then the event loop watches the descriptors that they wait for.

    If a descriptor is closed before that, the next connection gets its number, and the loop does not listen to it.
    """
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _remove_container(container: aiodocker.containers.DockerContainer) -> None:
    """Return when a container is gone, also when the engine was removing it already (because its guest had ended)."""
    for pause in (0.2, 1.0, None):
        try:
            await container.delete(force=True, v=True)
        except aiodocker.DockerError as error:
            if error.status == _CONFLICT:
                await container.wait(condition="removed", timeout=_REMOVAL_SECONDS)
                return
            if error.status != _FAILED or pause is None:
                raise
            await asyncio.sleep(pause)  # the engine was busy with the container
        else:
            return


def _listen(listener: socket.socket, folder: Path, uid: int) -> None:
    """Listen in `folder`; only the instance's uid (or, where the node is not root, whoever reaches the folder) may connect."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Through the descriptor: a socket's path has 108 bytes at most, a state folder may need more.
        path = Path(f"/proc/self/fd/{descriptor}/{Path(GUEST_SOCKET).name}")
        listener.bind(str(path))
        if os.geteuid() == 0:
            os.chown(path, uid, uid)
            path.chmod(0o600)
        else:
            path.chmod(0o666)  # the folders above are the node's alone
    finally:
        os.close(descriptor)
    listener.listen(1)
    listener.setblocking(False)


class DockerSandbox(SandboxService):
    """The sandbox service on the Docker backend."""

    def __init__(self, settings: DockerSettings) -> None:
        super().__init__(DockerBackend(settings), settings.pool, state_dir=settings.state_dir, self_tested=settings.self_test)
