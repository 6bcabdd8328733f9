"""Server-sent events of a computation (WHATWG HTML, 9.2): its states, and progress and output as the product allows."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from aiohttp import web

from pandacea.api.access import load_job, load_readable_job, require_readable, visible_state
from pandacea.api.node import NODE, NodeContext
from pandacea.api.openapi.operation import COMPUTATION_ID, EVENTS, READ_PROBLEMS, Auth, header_parameter, operation
from pandacea.domain.ids import LeaseId
from pandacea.domain.job import TERMINAL, Job, JobState
from pandacea.errors import Refused, Unavailable
from pandacea.flows.live_output import LiveFeed, StreamCursor, record_shown, wait_for_event
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.responses import output_members

HEARTBEAT_SECONDS: Final = 15.0
"""Between two writes of a stream that has nothing to say."""
FLUSH_SECONDS: Final = 0.1
"""Between two flushes: what arrives meanwhile is sent together."""
MAX_STREAM_SECONDS: Final = 3600.0
"""After which a stream ends; the client reconnects with its Last-Event-ID."""
EVENT_OUTPUT_BYTES: Final = 65_536
"""Bytes of output in one event."""


@operation(
    "GET",
    "/api/v1/privacy/results/{computation_id}/events",
    "Server-sent events: states, progress, and output as the product allows",
    Auth.SIGNED_OR_TOKEN,
    {200: EVENTS},
    (*READ_PROBLEMS, "too-many-streams", "bad-parameter"),
    parameters=(COMPUTATION_ID, header_parameter("Last-Event-ID", "Go on after this event.")),
)
async def get_events(request: web.Request) -> web.StreamResponse:
    """Stream the events of a computation until it ends. A client that reconnects goes on after its Last-Event-ID."""
    node = request.app[NODE]
    job = await load_readable_job(request, node)
    with node.streams.hold(job.spender):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        if request.method != "HEAD":
            await _Stream(request, response, job, node).run()
        await response.write_eof()
    return response


class _Stream:
    """Streams the events of one computation to one client."""

    def __init__(self, request: web.Request, response: web.StreamResponse, job: Job, node: NodeContext) -> None:
        self._response, self._job, self._node = response, job, node
        self._cursor = StreamCursor.parse(request.headers.get("Last-Event-ID"))
        self._last_state: JobState | None = None
        self._showing = False

    async def run(self) -> None:
        """Stream until the computation ends, may not be read any more, or MAX_STREAM_SECONDS have passed, or until the node stops."""
        loop, node = asyncio.get_running_loop(), self._node
        oldest = loop.time() + MAX_STREAM_SECONDS
        with node.notifier.subscribed(self._job.computation_id) as changed:

            def wake_on_change(lease_id: LeaseId | None) -> None:
                if lease_id in {None, self._job.lease_id}:
                    changed.set()

            unsubscribe = node.leases.subscribe(wake_on_change)
            try:
                while loop.time() < oldest and not node.notifier.stopping:
                    changed.clear()
                    if await self._flush():
                        return
                    await wait_for_event(changed, self._wait_seconds())
                    if not changed.is_set():
                        await self._write(b": still here\n\n")
                    await asyncio.sleep(FLUSH_SECONDS)
            except (Refused, Unavailable) as denied:
                # From here on nothing is sent but the reason.
                await self._send_event("denied", {"code": denied.code, "detail": denied.detail})
            finally:
                unsubscribe()

    async def _flush(self) -> bool:
        """Send what is new; True: nothing more will come."""
        node = self._node
        # The feed is read before the row: a run that ends in between has all its output in the feed.
        feed = node.notifier.find_feed(self._job.computation_id)
        self._job = await load_job(self._job.computation_id, node) or self._job
        require_readable(self._job, node)
        state = visible_state(self._job, node)
        if state is not self._last_state and state not in TERMINAL:
            await self._send_state(state)
        if feed is not None:
            await self._send_output(feed, over=state in TERMINAL)
        if state not in TERMINAL:
            return False
        await self._send_state(state)
        return True

    async def _send_state(self, state: JobState) -> None:
        self._last_state = state
        data: JsonObject = {"status": state.value}
        if state in TERMINAL and self._job.error is not None:
            data["error"] = self._job.error
        await self._send_event("state", data)

    async def _send_output(self, feed: LiveFeed, *, over: bool) -> None:
        output, progress, _ = feed.read_since(self._cursor)
        if not output and progress is None:
            return
        if not self._showing and not await record_shown(self._job.computation_id, self._node.database, self._node.clock):
            return
        self._showing = True
        while True:
            require_readable(self._job, self._node)
            output, progress, _ = feed.read_since(self._cursor)
            place = self._cursor if self._cursor.attempt == feed.attempt else StreamCursor(feed.attempt)
            if progress is not None:
                self._cursor = StreamCursor(feed.attempt, place.offset, feed.reports)
                await self._send_event("progress", {"done": progress[0], "total": progress[1]})
                continue
            piece = _whole_characters(output[:EVENT_OUTPUT_BYTES]) or (output if over else b"")
            if not piece:
                return
            self._cursor = StreamCursor(feed.attempt, place.offset + len(piece), place.reports)
            await self._send_event("output", {"offset": place.offset, **output_members(piece)})

    def _wait_seconds(self) -> float:
        if self._job.state is JobState.HELD and self._last_state is JobState.RUNNING:
            shown = self._job.held_visible_at(self._node.limits.time_seconds)
            return min(HEARTBEAT_SECONDS, max(shown - self._node.clock.now(), 0.01))
        return HEARTBEAT_SECONDS

    async def _send_event(self, kind: str, data: JsonObject) -> None:
        # JSON in ASCII on one line: nothing that a script writes can end the event or begin another.
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        await self._write(f"event: {kind}\nid: {self._cursor}\ndata: {text}\n\n".encode())

    async def _write(self, data: bytes) -> None:
        await self._response.write(data)


def _whole_characters(piece: bytes) -> bytes:
    """Return the bytes without a last UTF-8 character that is incomplete but may still be completed."""
    for back in range(1, min(4, len(piece)) + 1):
        lead = piece[-back]
        if lead & 0xC0 == 0x80:
            continue
        length = 1 if lead < 0x80 else 2 if lead >> 5 == 0b110 else 3 if lead >> 4 == 0b1110 else 4 if lead >> 3 == 0b11110 else 1
        return piece[:-back] if length > back else piece
    return piece
