"""The first word of a guest, which decides whether a box may be used."""

from __future__ import annotations

import json
import socket

from pandacea.errors import Unavailable
from pandacea.sandbox.conversation import GuestLostError, receive
from pandacea.sandbox.guest import wire


async def greet(sock: socket.socket) -> None:
    """Wait for a guest's hello and check it.

    Raises:
        Unavailable: it never came or says that this guest is not fit for a job.
    """
    try:
        tag, payload = await receive(sock)
        hello = json.loads(payload)
    except (GuestLostError, ValueError) as error:
        raise Unavailable(f"the guest did not start: {error}") from error
    if tag != wire.HELLO:
        raise Unavailable(f"the guest did not start: {str(hello.get('message'))[:2000]}")
    if hello.get("version") != wire.VERSION or hello.get("threads") != 1 or hello.get("uid") == 0:
        raise Unavailable(f"the guest is not fit for a job (version, threads and uid must be {wire.VERSION}, 1, not 0): {hello}")
