"""The first word of a guest, which decides whether a box may be used."""

from __future__ import annotations

import socket

from pandacea.errors import Unavailable
from pandacea.sandbox.guest import packets
from pandacea.sandbox.guest_messages import GuestHello, GuestMessage, GuestUnfit, MalformedMessageError, parse_message
from pandacea.sandbox.session import GuestLostError, receive_message


async def receive_hello(sock: socket.socket, *, as_root: bool = False) -> None:
    """Wait for a guest's hello and check it. Raises Unavailable."""
    try:
        message = await receive_message(sock)
    except GuestLostError as error:
        raise Unavailable(f"the guest did not start: {error}") from error
    check_hello(message, as_root=as_root)


def check_hello_packet(packet: bytes, *, as_root: bool = False) -> None:
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
    if isinstance(message, GuestUnfit):
        raise Unavailable(message.message)
    if not isinstance(message, GuestHello):
        raise Unavailable(f"the guest's first word is {type(message).__name__}, not its hello")
    if message.version != packets.VERSION or message.threads != 1 or (message.uid == 0) != as_root:
        raise Unavailable(
            f"the guest is not fit for a job (version, threads and uid must be {packets.VERSION}, 1, not 0): {message}"
        )
