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
from pandacea.flows.ports import CodeStarted, OutputWritten, ProgressReported, SandboxEvent, SandboxJob
from pandacea.sandbox.backend import SandboxInstance
from pandacea.sandbox.guest import packets
from pandacea.sandbox.guest_messages import (
    AllSent,
    ArtifactBegins,
    ArtifactBytes,
    ArtifactRefused,
    GuestMessage,
    GuestOutput,
    GuestProgress,
    MalformedMessageError,
    ScriptEnded,
    ScriptStarted,
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
class RunState:
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


def job_packets(job: SandboxJob, instance: SandboxInstance) -> Iterator[tuple[bytes, bytes]]:
    """Packets of a job that need no descriptor, in order; tables and uploads go between the first and the rest."""
    limits = job.limits
    header = {
        "kind": "script",
        "seed": job.seed,
        "threads": job.threads,
        "stderr": job.capture_stderr,
        "caps": {
            "output_bytes": limits.output_bytes,
            "artifact_bytes": limits.artifact_bytes,
            "artifacts_bytes": limits.artifacts_bytes,
            "artifact_count": limits.artifact_count,
            "artifact_depth": limits.artifact_depth,
            "watched_memory_bytes": instance.watched_memory_bytes,
        },
        "rlimits": {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1024, "RLIMIT_FSIZE": limits.workspace_bytes},
    }
    yield packets.JOB, json.dumps(header).encode()
    for tag, text in ((packets.PARAMS, job.params), (packets.CODE, job.code)):
        for start in range(0, len(text), packets.MAX_PAYLOAD):
            yield tag, text[start : start + packets.MAX_PAYLOAD]
    yield packets.GO, b""


async def send_job(instance: SandboxInstance, job: SandboxJob, open_input: Callable[[Any], int]) -> None:
    """Send a whole job; `opener` turns a path into a read-only descriptor fit for this guest.

    Raises:
        OSError: the guest is gone.
        Broken: a file is missing or must not be handed over.
    """
    to_send = job_packets(job, instance)
    await send_packet(instance.sock, *next(to_send))
    for table in job.inputs:
        entry = {"asset_id": table.asset_id, "variable_name": table.variable_name, "format": table.format.value}
        await _send_file(instance.sock, packets.INPUT, entry, open_input(table.path))
    for name, path in job.uploads.items():
        await _send_file(instance.sock, packets.UPLOAD, {"name": name}, open_input(path))
    for tag, payload in to_send:
        await send_packet(instance.sock, tag, payload)


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
            await _wait_writable(sock)
        else:
            return


async def _wait_writable(sock: socket.socket) -> None:
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


async def receive_message(sock: socket.socket) -> GuestMessage:
    """Return the guest's next message.

    Raises:
        GuestLostError: the connection ended, or what came is no message.
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


async def receive_run(sock: socket.socket, run_state: RunState, on_event: Callable[[SandboxEvent], None]) -> None:
    """Fill `account` until the guest is done or a cap is broken.

    Raises:
        GuestLostError: the guest ended, or said what it may not.
        OSError: this machine's disk did not take an artifact.
    """
    heard = 0
    while not run_state.done and not run_state.output_overflow and run_state.refused is None:
        message = await receive_message(sock)
        try:
            apply_message(message, run_state, on_event)
        except MalformedMessageError as error:
            raise GuestLostError(f"the guest spoke out of turn: {error}") from error
        except ArtifactRefusedError as error:
            run_state.refused = str(error)
        heard += 1
        if heard % _PACKETS_IN_A_ROW == 0:
            await asyncio.sleep(0)


def apply_message(message: GuestMessage, run_state: RunState, on_event: Callable[[SandboxEvent], None]) -> None:
    """Put one message into the account.

    Raises:
        MalformedMessageError: the protocol does not allow it now.
        ArtifactRefusedError: a file breaks a cap.
    """
    if run_state.ended is None:
        _apply_while_running(message, run_state, on_event)
    elif isinstance(message, ArtifactBytes):
        run_state.results.write_bytes(message.data)
    elif isinstance(message, ArtifactBegins):
        run_state.results.begin_file(message.name, message.size)
    elif isinstance(message, ArtifactRefused):
        run_state.refused = f"artifact '{message.name}': {message.reason}"
    elif isinstance(message, AllSent):
        run_state.done = True
    else:
        raise MalformedMessageError(f"{type(message).__name__} after the script's end")


def _apply_while_running(message: GuestMessage, run_state: RunState, on_event: Callable[[SandboxEvent], None]) -> None:
    if isinstance(message, GuestOutput):
        room = run_state.limits.output_bytes - len(run_state.output)
        run_state.output_overflow = len(message.data) > room
        run_state.output += message.data[:room]
        on_event(OutputWritten(message.data[:room]))
    elif isinstance(message, GuestProgress):
        if is_finite(message):
            on_event(ProgressReported(message.done, message.total))
    elif isinstance(message, ScriptStarted) and not run_state.code_started and run_state.unreadable is None:
        run_state.code_started = True
        on_event(CodeStarted())
    elif isinstance(message, TableUnreadable) and not run_state.code_started:
        run_state.unreadable = message
    elif isinstance(message, ScriptEnded):
        run_state.ended = message
    else:
        raise MalformedMessageError(f"{type(message).__name__} while the script {'runs' if run_state.code_started else 'loads'}")
