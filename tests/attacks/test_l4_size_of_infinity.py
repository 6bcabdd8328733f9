"""A guest announces a file of infinite size, and the overflow ends the worker that reads it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from pandacea.domain.limits import Limits
from pandacea.sandbox.guest import packets
from pandacea.sandbox.results import ResultsWriter
from pandacea.sandbox.script_run import RunState, receive_run
from pandacea.sandbox.session import GuestLostError

ENDED = packets.ENDED + b'{"exit": 0}'


@pytest.mark.parametrize("size", [b"Infinity", b"1e999", b"-Infinity", b"NaN", b"1.5", b'"7"', b"true", b"1" + b"0" * 400])
async def test_a_size_is_a_count_or_the_guest_is_lost(size: bytes, tmp_path: Path) -> None:
    """The supervisor is not believed either: what is no count of bytes ends the conversation, as the guest's own failure."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    for packet in (packets.STARTED, ENDED, packets.FILE + b'{"name": "a", "size": ' + size + b"}", packets.DONE):
        theirs.send(packet)
    limits = Limits()
    async with asyncio.timeout(10):
        with pytest.raises(GuestLostError, match="size"):
            await receive_run(ours, RunState(limits, ResultsWriter(tmp_path, limits)), lambda _event: None)
    ours.close()
    theirs.close()
    assert list(tmp_path.iterdir()) == []
