"""One conversion in one box: the source as a descriptor, two files to write to, a bounded account back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pandacea.domain.printable import printable
from pandacea.domain.table import MAX_COLUMNS, BadShape, TableShape, shape_of
from pandacea.errors import Unavailable
from pandacea.flows.conversion import ConversionJob, UnfitSource
from pandacea.sandbox.boxes import Box
from pandacea.sandbox.conversation import GuestLostError, receive, send_packet
from pandacea.sandbox.guest import wire
from pandacea.sandbox.guest_messages import AllSent, ProgressMade, TableAccount, is_finite
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.strict_json import check_depth

_ACCOUNT_BYTES: Final = 8 << 20
_ACCOUNT_DEPTH: Final = 16
_MARGIN: Final = 64 << 20
OnProgress = Callable[[float, float], None]


async def convert_in(box: Box, job: ConversionJob, on_progress: OnProgress) -> TableShape:
    """Run a conversion to its end; see `flows.conversion.Converter`."""
    talk = asyncio.create_task(_talk(box, job, on_progress))
    memory = asyncio.create_task(box.out_of_memory.wait())
    try:
        await asyncio.wait({talk, memory}, timeout=job.limits.time_seconds, return_when=asyncio.FIRST_COMPLETED)
        lost = talk.exception() if talk.done() else None
        if isinstance(lost, GuestLostError) and not box.out_of_memory.is_set():
            await asyncio.wait({memory}, timeout=1.0)  # a kill and the report of its cause travel on different roads
        if box.out_of_memory.is_set():
            raise UnfitSource(f"it needs more memory to read than the {job.limits.memory_bytes} bytes a conversion has")
        if not talk.done():
            raise UnfitSource(f"it was not read within {job.limits.time_seconds:g} seconds")
        if isinstance(lost, GuestLostError):
            failure = await box.host_failure()
            if failure is not None:
                raise Unavailable(failure)
            raise UnfitSource(f"the box that read it ended before it was done ({lost}): the file breaks its reader")
        return _shape(talk.result())
    finally:
        for task in (talk, memory):
            task.cancel()
        await asyncio.gather(talk, memory, return_exceptions=True)


def _shape(account: bytes) -> TableShape:
    try:
        check_depth(account, _ACCOUNT_DEPTH)
        told = json.loads(account)
        if not isinstance(told, dict):
            raise BadShape("it is no object")
        if (refused := told.get("refused")) is not None:
            raise UnfitSource(printable(str(refused), limit=1000))
        return shape_of(told)
    except (ValueError, RecursionError, ProtocolError) as error:
        raise UnfitSource(f"the box that read it gave no usable account: {printable(str(error), limit=200)}") from error


async def _talk(box: Box, job: ConversionJob, on_progress: OnProgress) -> bytes:
    try:
        await _send(box, job)
    except OSError as error:
        raise GuestLostError(f"the guest did not take the job: {error}") from error
    account = bytearray()
    while True:
        message = await receive(box.sock)
        if isinstance(message, AllSent):
            return bytes(account)
        if isinstance(message, TableAccount) and len(account) + len(message.data) <= _ACCOUNT_BYTES:
            account += message.data
        elif isinstance(message, ProgressMade):
            if is_finite(message):
                on_progress(message.done, message.total)
        else:
            raise GuestLostError(f"the guest sent an unexpected {type(message).__name__}")
        await asyncio.sleep(0)  # a packet that waits already is read without going through the event loop


async def _send(box: Box, job: ConversionJob) -> None:
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
        "piece_bytes": job.piece_bytes,
        "caps": {
            "table_bytes": job.table_bytes,
            "columns": MAX_COLUMNS,
            "memory_bytes": limits.memory_bytes - limits.workspace_bytes - limits.tmp_bytes - _MARGIN,
        },
    }
    await send_packet(box.sock, wire.JOB, b'{"kind": "convert"}')
    await send_packet(box.sock, wire.INPUT, json.dumps({"asset_id": "source"}).encode(), job.source)
    for path in (job.scratch, job.table):
        if path is not None:
            await _send_output(box, path)
    text = json.dumps(header).encode()
    for start in range(0, len(text), wire.MAX_PAYLOAD):
        await send_packet(box.sock, wire.PARAMS, text[start : start + wire.MAX_PAYLOAD])
    await send_packet(box.sock, wire.GO, b"")


async def _send_output(box: Box, path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        await send_packet(box.sock, wire.OUTPUT_FILE, b"{}", descriptor)
    finally:
        os.close(descriptor)
