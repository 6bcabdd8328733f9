"""The first word of a guest, which decides whether a box may be used."""

from __future__ import annotations

import json
import socket

from pandacea.errors import Unavailable
from pandacea.sandbox.conversation import GuestLostError, receive
from pandacea.sandbox.guest import wire


async def greet(sock: socket.socket, *, as_root: bool = False) -> None:
    """Wait for a guest's hello and check it. Raises Unavailable."""
    try:
        tag, payload = await receive(sock)
    except GuestLostError as error:
        raise Unavailable(f"the guest did not start: {error}") from error
    check(tag + payload, as_root=as_root)


def check(packet: bytes, *, as_root: bool = False) -> None:
    """Check a hello; only a template may still be root.

    Raises:
        Unavailable: it says that this guest is not fit for a job.
    """
    try:
        hello = json.loads(packet[1:])
    except ValueError as error:
        raise Unavailable(f"the guest's hello is malformed: {error}") from error
    if packet[:1] != wire.HELLO:
        raise Unavailable(str(hello.get("message"))[:2000])
    if hello.get("version") != wire.VERSION or hello.get("threads") != 1 or (hello.get("uid") == 0) != as_root:
        raise Unavailable(f"the guest is not fit for a job (version, threads and uid must be {wire.VERSION}, 1, not 0): {hello}")
