"""One conversion in one box: the source as a descriptor, two files to write to, a bounded account back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pandacea.domain.printable import printable
from pandacea.domain.table import MAX_COLUMNS, BadShape, TableShape
from pandacea.errors import Unavailable
from pandacea.flows.conversion import ConversionJob, UnreadableSource
from pandacea.sandbox.backend import SandboxInstance
from pandacea.sandbox.guest import packets
from pandacea.sandbox.guest_messages import AllSent, ConversionReport, GuestProgress, is_finite
from pandacea.sandbox.session import GuestLostError, receive_message, send_packet
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.strict_json import check_depth

_MAX_REPORT_BYTES: Final = 8 << 20
_MAX_REPORT_DEPTH: Final = 16
_MEMORY_MARGIN_BYTES: Final = 64 << 20
OnConversionProgress = Callable[[float, float], None]


async def run_conversion_job(instance: SandboxInstance, job: ConversionJob, on_progress: OnConversionProgress) -> TableShape:
    """Run a conversion to its end; see `flows.conversion.Converter`."""
    talk = asyncio.create_task(_exchange(instance, job, on_progress))
    memory = asyncio.create_task(instance.out_of_memory.wait())
    try:
        await asyncio.wait({talk, memory}, timeout=job.limits.time_seconds, return_when=asyncio.FIRST_COMPLETED)
        lost = talk.exception() if talk.done() else None
        if isinstance(lost, GuestLostError) and not instance.out_of_memory.is_set():
            await asyncio.wait({memory}, timeout=1.0)  # a kill and the report of its cause travel on different roads
        if instance.out_of_memory.is_set():
            raise UnreadableSource(f"it needs more memory to read than the {job.limits.memory_bytes} bytes a conversion has")
        if not talk.done():
            raise UnreadableSource(f"it was not read within {job.limits.time_seconds:g} seconds")
        if isinstance(lost, GuestLostError):
            failure = await instance.host_failure()
            if failure is not None:
                raise Unavailable(failure)
            raise UnreadableSource(f"the box that read it ended before it was done ({lost}): the file breaks its reader")
        return _parse_report(talk.result())
    finally:
        for task in (talk, memory):
            task.cancel()
        await asyncio.gather(talk, memory, return_exceptions=True)


def _parse_report(report: bytes) -> TableShape:
    try:
        check_depth(report, _MAX_REPORT_DEPTH)
        told = json.loads(report)
        if not isinstance(told, dict):
            raise BadShape("it is no object")
        if (refused := told.get("refused")) is not None:
            raise UnreadableSource(printable(str(refused), limit=1000))
        return TableShape.from_json(told)
    except (ValueError, RecursionError, ProtocolError) as error:
        raise UnreadableSource(f"the box that read it gave no usable account: {printable(str(error), limit=200)}") from error


async def _exchange(instance: SandboxInstance, job: ConversionJob, on_progress: OnConversionProgress) -> bytes:
    try:
        await _send_conversion(instance, job)
    except OSError as error:
        raise GuestLostError(f"the guest did not take the job: {error}") from error
    account = bytearray()
    while True:
        message = await receive_message(instance.sock)
        if isinstance(message, AllSent):
            return bytes(account)
        if isinstance(message, ConversionReport) and len(account) + len(message.data) <= _MAX_REPORT_BYTES:
            account += message.data
        elif isinstance(message, GuestProgress):
            if is_finite(message):
                on_progress(message.done, message.total)
        else:
            raise GuestLostError(f"the guest sent an unexpected {type(message).__name__}")
        await asyncio.sleep(0)  # a packet that waits already is read without going through the event loop


async def _send_conversion(instance: SandboxInstance, job: ConversionJob) -> None:
    recipe, limits = job.recipe, job.limits
    header: dict[str, Any] = {
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
