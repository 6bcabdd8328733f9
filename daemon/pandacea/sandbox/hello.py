"""The first word of a guest, which decides whether a box may be used."""

from __future__ import annotations

import socket

from pandacea.errors import Unavailable
from pandacea.sandbox.conversation import GuestLostError, receive
from pandacea.sandbox.guest import wire
from pandacea.sandbox.guest_messages import GuestMessage, Hello, MalformedMessageError, Unfit, parse_message


async def greet(sock: socket.socket, *, as_root: bool = False) -> None:
    """Wait for a guest's hello and check it. Raises Unavailable."""
    try:
        message = await receive(sock)
    except GuestLostError as error:
        raise Unavailable(f"the guest did not start: {error}") from error
    check_hello(message, as_root=as_root)


def check(packet: bytes, *, as_root: bool = False) -> None:
    """Check the packet of a hello; see `check_hello`. Raises Unavailable."""
    try:
        message = parse_message(packet)
    except MalformedMessageError as error:
        raise Unavailable(f"the guest's hello is malformed: {error}") from error
    check_hello(message, as_root=as_root)


def check_hello(message: GuestMessage, *, as_root: bool = False) -> None:
    """Check a hello; only a template may still be root.

    Raises:
        Unavailable: it says that this guest is not fit for a job.
    """
    if isinstance(message, Unfit):
        raise Unavailable(message.message)
    if not isinstance(message, Hello):
        raise Unavailable(f"the guest's first word is {type(message).__name__}, not its hello")
    if message.version != wire.VERSION or message.threads != 1 or (message.uid == 0) != as_root:
        raise Unavailable(f"the guest is not fit for a job (version, threads and uid must be {wire.VERSION}, 1, not 0): {message}")
