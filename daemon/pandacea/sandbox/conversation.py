"""One job, one guest: send everything, listen until the end, believe nothing but sizes and counts seen here.

What a guest says is read by `guest_messages`; here its order is checked: what the protocol allows when.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pandacea.domain.limits import Limits
from pandacea.flows.ports import CodeStarted, OutputWritten, Progressed, SandboxEvent, SandboxJob
from pandacea.sandbox.boxes import Box
from pandacea.sandbox.guest import wire
from pandacea.sandbox.guest_messages import (
    AllSent,
    ArtifactBegins,
    ArtifactBytes,
    ArtifactRefused,
    GuestMessage,
    MalformedMessageError,
    ProgressMade,
    ScriptEnded,
    ScriptStarted,
    ScriptWrote,
    TableUnreadable,
    is_finite,
    parse_message,
)
from pandacea.sandbox.results import ArtifactRefusedError, ResultsWriter

_PACKETS_IN_A_ROW: Final = 16
"""After so many packets everything else of the node has its turn: a packet that waits already is read without going through the loop,
and a guest can fill its socket as fast as it is emptied. Sixteen of the largest are 1 MiB to hash and write."""


class GuestLostError(Exception):
    """The connection ended, or what came is no packet of ours, before the guest was done."""


@dataclass
class Account:
    """What is known of a run so far."""

    limits: Limits
    results: ResultsWriter
    output: bytearray = field(default_factory=bytearray)
    code_started: bool = False
    output_overflow: bool = False
    refused: str | None = None
    unreadable: TableUnreadable | None = None
    ended: ScriptEnded | None = None
    done: bool = False


def job_packets(job: SandboxJob, box: Box) -> Iterator[tuple[bytes, bytes]]:
    """Packets of a job that need no descriptor, in order; tables and uploads go between the first and the rest."""
    limits = job.limits
    header = {
        "kind": "script",
        "seed": job.seed,
        "threads": job.threads,
        "stderr": job.stderr,
        "caps": {
            "output_bytes": limits.output_bytes,
            "artifact_bytes": limits.artifact_bytes,
            "artifacts_bytes": limits.artifacts_bytes,
            "artifact_count": limits.artifact_count,
            "artifact_depth": limits.artifact_depth,
            "watched_memory_bytes": box.watched_memory_bytes,
        },
        "rlimits": {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1024, "RLIMIT_FSIZE": limits.workspace_bytes},
    }
    yield wire.JOB, json.dumps(header).encode()
    for tag, text in ((wire.PARAMS, job.params), (wire.CODE, job.code)):
        for start in range(0, len(text), wire.MAX_PAYLOAD):
            yield tag, text[start : start + wire.MAX_PAYLOAD]
    yield wire.GO, b""


async def send_job(box: Box, job: SandboxJob, opener: Callable[[Any], int]) -> None:
    """Send a whole job; `opener` turns a path into a read-only descriptor fit for this guest.

    Raises:
        OSError: the guest is gone.
        Broken: a file is missing or must not be handed over.
    """
    packets = job_packets(job, box)
    await send_packet(box.sock, *next(packets))
    for table in job.inputs:
        entry = {"asset_id": table.asset_id, "variable_name": table.variable_name, "format": table.format.value}
        await _send_file(box.sock, wire.INPUT, entry, opener(table.path))
    for name, path in job.uploads.items():
        await _send_file(box.sock, wire.UPLOAD, {"name": name}, opener(path))
    for tag, payload in packets:
        await send_packet(box.sock, tag, payload)


async def _send_file(sock: socket.socket, tag: bytes, entry: dict[str, Any], descriptor: int) -> None:
    try:
        await send_packet(sock, tag, json.dumps(entry).encode(), descriptor)
    finally:
        os.close(descriptor)


async def send_packet(sock: socket.socket, tag: bytes, payload: bytes, descriptor: int | None = None) -> None:
    """Send one packet, and a descriptor with it; waits while the guest is slow. Raises OSError when the guest is gone."""
    ancillary = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    while True:
        try:
            sock.sendmsg((tag, payload), ancillary, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            await _writable(sock)
        else:
            return


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(sock, wake)
    try:
        await ready
    finally:
        loop.remove_writer(sock)


async def receive(sock: socket.socket) -> GuestMessage:
    """Return the guest's next message.

    Raises:
        GuestLostError: the connection ended, or what came is no message.
    """
    try:
        packet = await asyncio.get_running_loop().sock_recv(sock, wire.MAX_PAYLOAD + 1)
    except OSError as error:
        raise GuestLostError(f"the guest's connection broke: {error}") from error
    if not packet:
        raise GuestLostError("the guest ended without a result")
    try:
        return parse_message(packet)
    except MalformedMessageError as error:
        raise GuestLostError(f"the guest sent a malformed packet: {error}") from error


async def listen(sock: socket.socket, account: Account, on_event: Callable[[SandboxEvent], None]) -> None:
    """Fill `account` until the guest is done or a cap is broken.

    Raises:
        GuestLostError: the guest ended, or said what it may not.
        OSError: this machine's disk did not take an artifact.
    """
    heard = 0
    while not account.done and not account.output_overflow and account.refused is None:
        message = await receive(sock)
        try:
            take_message(message, account, on_event)
        except MalformedMessageError as error:
            raise GuestLostError(f"the guest spoke out of turn: {error}") from error
        except ArtifactRefusedError as error:
            account.refused = str(error)
        heard += 1
        if heard % _PACKETS_IN_A_ROW == 0:
            await asyncio.sleep(0)


def take_message(message: GuestMessage, account: Account, on_event: Callable[[SandboxEvent], None]) -> None:
    """Put one message into the account.

    Raises:
        MalformedMessageError: the protocol does not allow it now.
        ArtifactRefusedError: a file breaks a cap.
    """
    if account.ended is None:
        _take_while_running(message, account, on_event)
    elif isinstance(message, ArtifactBytes):
        account.results.write(message.data)
    elif isinstance(message, ArtifactBegins):
        account.results.begin(message.name, message.size)
    elif isinstance(message, ArtifactRefused):
        account.refused = f"artifact '{message.name}': {message.reason}"
    elif isinstance(message, AllSent):
        account.done = True
    else:
        raise MalformedMessageError(f"{type(message).__name__} after the script's end")


def _take_while_running(message: GuestMessage, account: Account, on_event: Callable[[SandboxEvent], None]) -> None:
    if isinstance(message, ScriptWrote):
        room = account.limits.output_bytes - len(account.output)
        account.output_overflow = len(message.data) > room
        account.output += message.data[:room]
        on_event(OutputWritten(message.data[:room]))
    elif isinstance(message, ProgressMade):
        if is_finite(message):
            on_event(Progressed(message.done, message.total))
    elif isinstance(message, ScriptStarted) and not account.code_started and account.unreadable is None:
        account.code_started = True
        on_event(CodeStarted())
    elif isinstance(message, TableUnreadable) and not account.code_started:
        account.unreadable = message
    elif isinstance(message, ScriptEnded):
        account.ended = message
    else:
        raise MalformedMessageError(f"{type(message).__name__} while the script {'runs' if account.code_started else 'loads'}")
