"""Converts one source on one instance: send the source and two files to write to as descriptors, receive a bounded JSON report."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pandacea.domain.limits import MIB
from pandacea.domain.printable import printable
from pandacea.domain.table import MAX_COLUMNS, BadShape, TableShape
from pandacea.errors import Unavailable
from pandacea.flows.ports import ConversionJob, UnreadableSource
from pandacea.sandbox.backend import SandboxInstance
from pandacea.sandbox.guest import packets
from pandacea.sandbox.guest_messages import AllSent, ConversionReport, GuestProgress, is_finite
from pandacea.sandbox.session import (
    GuestLostError,
    OutOfMemoryError,
    TimeLimitError,
    find_host_failure,
    receive_message,
    run_exchange,
    send_packet,
)
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.strict_json import check_depth

_MAX_REPORT_BYTES: Final = 8 * MIB
_MAX_REPORT_DEPTH: Final = 16
"""Nested objects and arrays of a report."""
_MEMORY_MARGIN_BYTES: Final = 64 * MIB
"""What a conversion may not plan to use of its memory limit."""
OnProgress = Callable[[float, float], None]


async def run_conversion_job(instance: SandboxInstance, job: ConversionJob, on_progress: OnProgress) -> TableShape:
    """Run a conversion to its end; see `flows.ports.TableConverter`."""
    limits = job.limits
    try:
        report = await run_exchange(instance, _exchange(instance, job, on_progress), limits.time_seconds)
    except OutOfMemoryError as error:
        raise UnreadableSource(
            f"reading it takes more memory than the {limits.memory_bytes} bytes that a conversion has"
        ) from error
    except TimeLimitError as error:
        raise UnreadableSource(f"it was not read within {limits.time_seconds:g} seconds") from error
    except GuestLostError as error:
        failure = await find_host_failure(instance)
        if failure is not None:
            raise Unavailable(failure) from error
        raise UnreadableSource(
            f"the sandbox that read it ended before it was done ({error}): the file breaks its reader"
        ) from error
    return _parse_report(report)


def _parse_report(report: bytes) -> TableShape:
    try:
        check_depth(report, _MAX_REPORT_DEPTH)
        value = json.loads(report)
        if not isinstance(value, dict):
            raise BadShape("it is not an object")
        if (refused := value.get("refused")) is not None:
            raise UnreadableSource(printable(str(refused), limit=1000))
        return TableShape.from_json(value)
    except (ValueError, RecursionError, ProtocolError) as error:
        raise UnreadableSource(f"the sandbox that read it sent no usable report: {printable(str(error), limit=200)}") from error


async def _exchange(instance: SandboxInstance, job: ConversionJob, on_progress: OnProgress) -> bytes:
    try:
        await _send_conversion(instance, job)
    except OSError as error:
        raise GuestLostError(f"the guest did not take the job: {error}") from error
    report = bytearray()
    while True:
        message = await receive_message(instance.sock)
        if isinstance(message, AllSent):
            return bytes(report)
        if isinstance(message, ConversionReport) and len(report) + len(message.data) <= _MAX_REPORT_BYTES:
            report += message.data
        elif isinstance(message, GuestProgress):
            if is_finite(message):
                on_progress(message.done, message.total)
        else:
            raise GuestLostError(f"the guest sent an unexpected {type(message).__name__}")
        await asyncio.sleep(0)  # a packet that waits already is read without passing through the event loop


async def _send_conversion(instance: SandboxInstance, job: ConversionJob) -> None:
    recipe, limits = job.recipe, job.limits
    header: JsonObject = {
        "kind": "convert",
        "format": recipe.format.value,
        "separator": recipe.separator,
        "table": recipe.table,
        "keep": None if recipe.keep is None else list(recipe.keep),
        "drop": list(recipe.drop),
        "types": None if job.types is None else dict(job.types),
        "nan": job.missing_as_nan,
        "look": job.table is None,
        "piece_bytes": job.chunk_bytes,
        "caps": {
            "table_bytes": job.max_table_bytes,
            "columns": MAX_COLUMNS,
            "memory_bytes": limits.memory_bytes - limits.workspace_bytes - limits.tmp_bytes - _MEMORY_MARGIN_BYTES,
        },
    }
    await send_packet(instance.sock, packets.JOB, b'{"kind": "convert"}')
    await send_packet(instance.sock, packets.INPUT, json.dumps({"asset_id": "source"}).encode(), job.source)
    for path in (job.scratch, job.table):
        if path is not None:
            await _send_output_file(instance, path)
    text = json.dumps(header).encode()
    for start in range(0, len(text), packets.MAX_PAYLOAD):
        await send_packet(instance.sock, packets.PARAMS, text[start : start + packets.MAX_PAYLOAD])
    await send_packet(instance.sock, packets.GO, b"")


async def _send_output_file(instance: SandboxInstance, path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        await send_packet(instance.sock, packets.OUTPUT_FILE, b"{}", descriptor)
    finally:
        os.close(descriptor)
