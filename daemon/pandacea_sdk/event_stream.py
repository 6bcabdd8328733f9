"""A computation's events as they happen: server-sent events (WHATWG HTML, 9.2), continued where they stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from pandacea_sdk.errors import NodeError, NodeUnavailable, error_class, error_from_protocol
from pandacea_sdk.node import NodeConnection
from pandacea_sdk.protocol import strict_json
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.responses import ENDED
from pandacea_sdk.protocol.verify import decode_base64

MAX_EVENT_BYTES: Final = 2**20
"""A longer event is refused: a node sends 64 KiB of output in one, at most six characters each in JSON."""
MAX_FAILURES: Final = 5
"""Connections in a row that failed, after which a stream ends with the last one's error."""
QUIET_SECONDS: Final = 10.0
"""The longest pause before a connection that brought nothing new is made again."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What happened: a new `status`, progress (`done` of `total`), or `output` of the script."""

    kind: Literal["state", "progress", "output"]
    status: str | None = None
    done: float | None = None
    total: float | None = None
    output: bytes = b""

    @property
    def text(self) -> str:
        """The output as text; bytes that are not UTF-8 are replaced."""
        return self.output.decode("utf-8", "replace")


async def stream_events(node: NodeConnection, computation_id: str) -> AsyncIterator[JobEvent]:
    """Yield the events of a computation until it has ended. A connection that breaks is made again and goes on after the last event.

    Raises:
        PandaceaError: the node refuses, or nothing may leave any more.
    """
    last_id: str | None = None
    last_status: str | None = None
    failures, pause = 0, 0.1
    target = f"/api/v1/privacy/results/{quote(computation_id, safe='')}/events"
    while True:
        pause = min(2 * pause, QUIET_SECONDS)
        try:
            headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": last_id})
            async with node.transport.open_stream(target, chain_id=await node.chain_id(), headers=headers) as reply:
                async for kind, event_id, data in _parse(reply.pieces):
                    last_id = event_id or last_id
                    event = _read_event(kind, data)
                    if event is None or (event.kind == "state" and event.status == last_status):
                        continue  # a new connection begins with the state
                    failures, pause = 0, 0.1
                    yield event
                    if event.kind == "state":
                        last_status = event.status
                        if last_status in ENDED:
                            return
        except NodeUnavailable as error:
            failures += 1
            if failures >= MAX_FAILURES:
                raise
            pause = error.retry_after if error.retry_after is not None else pause
        await asyncio.sleep(pause)


async def _parse(pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, str | None, JsonObject]]:
    """Yield (kind, id, data) of each whole event; comments and fields that are not known are left out."""
    waiting = b""
    async for piece in pieces:
        waiting += piece
        *blocks, waiting = waiting.replace(b"\r\n", b"\n").split(b"\n\n")
        if len(waiting) > MAX_EVENT_BYTES:
            raise NodeError("bad-answer", f"An event of the node has more than {MAX_EVENT_BYTES:,} bytes.")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line and not line.startswith(b":"))
            if b"data" not in fields or b"event" not in fields:
                continue
            try:
                data = strict_json.parse_json(fields[b"data"])
                event_id = fields[b"id"].decode("ascii") if b"id" in fields else None
            except (ProtocolError, UnicodeDecodeError):
                data, event_id = None, None
            if not isinstance(data, dict) or not (event_id is None or event_id.isprintable()):
                raise NodeError("bad-answer", "An event of the node is not a JSON object.")
            yield fields[b"event"].decode("ascii", "replace"), event_id, data


def _read_event(kind: str, data: JsonObject) -> JobEvent | None:
    """Make the event of its data; None: of a kind that only a newer node knows."""
    if kind == "state" and isinstance(data.get("status"), str):
        return JobEvent("state", status=data["status"])
    if kind == "progress" and _is_number(data.get("done")) and _is_number(data.get("total")):
        return JobEvent("progress", done=float(data["done"]), total=float(data["total"]))
    if kind == "output" and isinstance(data.get("output"), str):
        encoded = data.get("output_base64")
        try:
            return JobEvent(
                "output", output=data["output"].encode() if encoded is None else decode_base64(encoded, "an event's output")
            )
        except ProtocolError as error:
            raise error_from_protocol(error) from None
    if kind == "denied":
        code, detail = str(data.get("code")), str(data.get("detail"))
        raise error_class(code)(code, detail)
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
