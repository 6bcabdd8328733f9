"""One job, one guest: send everything, listen until the end, believe nothing but sizes and counts seen here."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pandacea.domain.limits import Limits
from pandacea.flows.ports import CodeStarted, OutputWritten, Progressed, SandboxEvent, SandboxJob
from pandacea.sandbox.boxes import Box
from pandacea.sandbox.guest import wire
from pandacea.sandbox.results import ArtifactRefusedError, ResultsWriter

_PROGRESS: Final = struct.Struct(">dd")
_JSON_BYTES: Final = 32_768


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
    unreadable: dict[str, Any] | None = None
    ended: dict[str, Any] | None = None
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


async def receive(sock: socket.socket) -> tuple[bytes, bytes]:
    """Return tag and payload of the next packet. Raises GuestLostError at the end of the connection."""
    try:
        data = await asyncio.get_running_loop().sock_recv(sock, wire.MAX_PAYLOAD + 1)
    except OSError as error:
        raise GuestLostError(f"the guest's connection broke: {error}") from error
    if not data:
        raise GuestLostError("the guest ended without a result")
    return data[:1], data[1:]


async def listen(sock: socket.socket, account: Account, on_event: Callable[[SandboxEvent], None]) -> None:
    """Fill `account` until the guest is done or a cap is broken. Raises GuestLostError."""
    while not account.done and not account.output_overflow and account.refused is None:
        tag, payload = await receive(sock)
        try:
            _take(tag, payload, account, on_event)
        except ArtifactRefusedError as error:
            account.refused = str(error)
        except (ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
            raise GuestLostError(f"the guest sent a malformed packet {tag!r}: {error}") from error


def _take(tag: bytes, payload: bytes, account: Account, on_event: Callable[[SandboxEvent], None]) -> None:
    if tag == wire.WRITTEN:
        room = account.limits.output_bytes - len(account.output)
        account.output_overflow = len(payload) > room
        account.output += payload[:room]
        on_event(OutputWritten(payload[:room]))
    elif tag == wire.BYTES:
        account.results.write(payload)
    elif tag == wire.FILE:
        entry = _json(payload)
        account.results.begin(str(entry["name"]), int(entry["size"]))
    elif tag == wire.PROGRESS:
        done, total = _PROGRESS.unpack(payload)
        on_event(Progressed(done, total))
    elif tag == wire.STARTED:
        account.code_started = True
        on_event(CodeStarted())
    elif tag == wire.ENDED:
        account.ended = _json(payload)
    elif tag == wire.REFUSED:
        entry = _json(payload)
        account.refused = f"artifact {str(entry['name'])[:200]!a}: {str(entry['reason'])[:300]}"
    elif tag == wire.UNREADABLE:
        account.unreadable = _json(payload)
    elif tag == wire.DONE:
        account.done = True
    else:
        raise ValueError("unknown tag")


def _json(payload: bytes) -> dict[str, Any]:
    if len(payload) > _JSON_BYTES:
        raise ValueError(f"{len(payload)} bytes of JSON")
    value = json.loads(payload)
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value
