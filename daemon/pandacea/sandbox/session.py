"""The session with one guest: handshake, packets, and an exchange that ends by itself, by its time limit or by a kill for memory.

`guest_messages` parses what a guest sends; `script_run` and `conversion` check its order.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from pandacea.errors import Unavailable
from pandacea.sandbox.backend import SandboxInstance
from pandacea.sandbox.guest import packets
from pandacea.sandbox.guest_messages import GuestHello, GuestMessage, GuestUnfit, MalformedMessageError, parse_message
from pandacea.sandbox.readiness import wait_writable

T = TypeVar("T")

_OOM_GRACE_SECONDS: Final = 1.0
"""The guest's socket may close before the notification of a kill for memory arrives; wait this long for it."""
_HOST_FAILURE_SECONDS: Final = 15.0
"""How long an engine may take to say why an instance ended."""


class GuestLostError(Exception):
    """The connection ended, or the guest sent something invalid, before the exchange was complete."""


class OutOfMemoryError(Exception):
    """The kernel or the engine reported that a process of the instance was killed for memory."""


class TimeLimitError(Exception):
    """An exchange did not end within its time limit."""


async def receive_hello(sock: socket.socket, *, as_root: bool = False) -> None:
    """Wait for a guest's hello and check it. Raises Unavailable."""
    try:
        message = await receive_message(sock)
    except GuestLostError as error:
        raise Unavailable(f"the guest did not start: {error}") from error
    check_hello(message, as_root=as_root)


def check_hello_packet(packet: bytes) -> None:
    """Parse and check a hello; see `check_hello`. Raises Unavailable."""
    try:
        message = parse_message(packet)
    except MalformedMessageError as error:
        raise Unavailable(f"the guest's hello is malformed: {error}") from error
    check_hello(message)


def check_hello(message: GuestMessage, *, as_root: bool = False) -> None:
    """Check that a guest is ready for a job; only a zygote may still be root.

    Raises:
        Unavailable: it reports that it cannot start, or its hello is not that of a guest that can run a job.
    """
    if isinstance(message, GuestUnfit):
        raise Unavailable(message.message)
    if not isinstance(message, GuestHello):
        raise Unavailable(f"the guest's first message is {type(message).__name__}, not its hello")
    if message.version != packets.VERSION or message.threads != 1 or (message.uid == 0) != as_root:
        raise Unavailable(
            f"the guest is not fit for a job (version, threads and uid must be {packets.VERSION}, 1, not 0): {message}"
        )


async def send_packet(sock: socket.socket, tag: bytes, payload: bytes, descriptor: int | None = None) -> None:
    """Send one packet, with a descriptor if given; wait while the guest is slow. Raises OSError when the guest is gone."""
    while True:
        try:
            if descriptor is None:
                sock.sendmsg((tag, payload))
            else:
                socket.send_fds(sock, (tag, payload), (descriptor,))
        except BlockingIOError:
            await wait_writable(sock)
        else:
            return


async def receive_message(sock: socket.socket) -> GuestMessage:
    """Return the guest's next message.

    Raises:
        GuestLostError: the connection ended, or the packet is not a valid message.
    """
    try:
        packet = await asyncio.get_running_loop().sock_recv(sock, packets.MAX_PAYLOAD + 1)
    except OSError as error:
        raise GuestLostError(f"the guest's connection broke: {error}") from error
    if not packet:
        raise GuestLostError("the guest ended without a result")
    try:
        return parse_message(packet)
    except MalformedMessageError as error:
        raise GuestLostError(f"the guest sent a malformed packet: {error}") from error


async def run_exchange(
    instance: SandboxInstance,
    exchange: Coroutine[Any, Any, T],
    time_seconds: float,
    *,
    was_killed: Callable[[], bool] = lambda: False,
) -> T:
    """Await an exchange with an instance's guest and return its result; it is cancelled when a limit ends it.

    `was_killed`: whether the guest reported a SIGKILL. After one, and after an exchange that failed, the notification of a kill for
    memory is waited for, since it may come later.

    Raises:
        OutOfMemoryError: the memory limit ended it; outranks everything else.
        TimeLimitError: it took longer than `time_seconds`.
        Exception: what the exchange raised.
    """
    running = asyncio.create_task(exchange)
    memory = asyncio.create_task(instance.out_of_memory.wait())
    try:
        await asyncio.wait({running, memory}, timeout=time_seconds, return_when=asyncio.FIRST_COMPLETED)
        if (running.done() and running.exception() is not None) or was_killed():
            await asyncio.wait({memory}, timeout=_OOM_GRACE_SECONDS)
        if instance.out_of_memory.is_set():
            raise OutOfMemoryError
        if not running.done():
            raise TimeLimitError
        return running.result()
    finally:
        for task in (running, memory):
            task.cancel()
        await asyncio.gather(running, memory, return_exceptions=True)


async def find_host_failure(instance: SandboxInstance) -> str | None:
    """Return why the host ended an instance, in one sentence; None when nothing but its script can have."""
    try:
        async with asyncio.timeout(_HOST_FAILURE_SECONDS):
            return await instance.host_failure()
    except TimeoutError:
        return "The container engine does not answer any more."
