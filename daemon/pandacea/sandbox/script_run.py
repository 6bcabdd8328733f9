"""One script on one guest: send everything, then receive until its end; believe nothing but sizes and counts observed here."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
)
from pandacea.sandbox.results import ArtifactRefusedError, ResultsWriter
from pandacea.sandbox.session import GuestLostError, receive_message, send_packet

_PACKETS_IN_A_ROW: Final = 16
"""Packets after which the rest of the node runs: a packet that waits already is read without passing through the event loop,
and a guest can fill its socket as fast as it is emptied. Sixteen of the largest are 1 MiB to hash and write."""


@dataclass
class RunState:
    """What is known of a run so far."""

    limits: Limits
    results: ResultsWriter
    output: bytearray = field(default_factory=bytearray)
    code_started: bool = False
    output_overflow: bool = False
    refused: str | None = None
    """Why no artifact of the run is kept."""
    unreadable: TableUnreadable | None = None
    ended: ScriptEnded | None = None
    done: bool = False


def job_packets(job: SandboxJob, instance: SandboxInstance) -> Iterator[tuple[bytes, bytes]]:
    """Yield tag and payload of a job's packets without descriptors; tables and uploads are sent between the first and the rest."""
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
            "pids": limits.pids,
            "watched_memory_bytes": instance.watched_memory_bytes,
        },
        "rlimits": {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1024, "RLIMIT_FSIZE": limits.workspace_bytes},
    }
    yield packets.JOB, json.dumps(header).encode()
    for tag, text in ((packets.PARAMS, job.params), (packets.CODE, job.code)):
        for start in range(0, len(text), packets.MAX_PAYLOAD):
            yield tag, text[start : start + packets.MAX_PAYLOAD]
    yield packets.GO, b""


async def send_job(instance: SandboxInstance, job: SandboxJob, open_input: Callable[[Path], int]) -> None:
    """Send a whole job; `open_input` returns a read-only descriptor of a file, fit for this guest.

    Raises:
        OSError: the guest is gone.
        Broken: a file is missing or must not be given to a guest.
    """
    pending = job_packets(job, instance)
    await send_packet(instance.sock, *next(pending))
    for table in job.inputs:
        entry = {"asset_id": table.asset_id, "variable_name": table.variable_name, "format": table.format.value}
        await _send_file(instance.sock, packets.INPUT, entry, open_input(table.path))
    for name, path in job.uploads.items():
        await _send_file(instance.sock, packets.UPLOAD, {"name": name}, open_input(path))
    for tag, payload in pending:
        await send_packet(instance.sock, tag, payload)


async def _send_file(sock: socket.socket, tag: bytes, entry: dict[str, str], descriptor: int) -> None:
    try:
        await send_packet(sock, tag, json.dumps(entry).encode(), descriptor)
    finally:
        os.close(descriptor)


async def receive_run(sock: socket.socket, run_state: RunState, on_event: Callable[[SandboxEvent], None]) -> None:
    """Receive messages into `run_state` until the guest is done or a cap is exceeded.

    Raises:
        GuestLostError: the guest ended, or sent what the protocol does not allow.
        OSError: this machine's disk did not take an artifact.
    """
    received = 0
    while not run_state.done and not run_state.output_overflow and run_state.refused is None:
        message = await receive_message(sock)
        try:
            apply_message(message, run_state, on_event)
        except MalformedMessageError as error:
            raise GuestLostError(f"the guest sent a message out of order: {error}") from error
        except ArtifactRefusedError as error:
            run_state.refused = str(error)
        received += 1
        if received % _PACKETS_IN_A_ROW == 0:
            await asyncio.sleep(0)


def apply_message(message: GuestMessage, run_state: RunState, on_event: Callable[[SandboxEvent], None]) -> None:
    """Record one message in the run's state.

    Raises:
        MalformedMessageError: the protocol does not allow it now.
        ArtifactRefusedError: a file exceeds a cap.
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
