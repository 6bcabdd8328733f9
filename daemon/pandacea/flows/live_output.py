"""What a running computation shows to its Spender as far as the product allows, and who is waiting for it to move on.

In memory: the job's row is the truth. A reader that comes back goes on where its cursor stood.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from pandacea.domain.audit_entries import BY_NODE, audit_job
from pandacea.domain.job import TERMINAL, JobState, Mode
from pandacea.domain.product import LiveOutput
from pandacea.flows.ports import Clock, OutputWritten, ProgressReported, SandboxEvent
from pandacea.flows.unit_of_work import Database

_CURSOR: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class StreamCursor:
    """How far a reader has come: the attempt of the job, bytes of its output, reports of its progress."""

    attempt: int = 0
    offset: int = 0
    reports: int = 0

    def __str__(self) -> str:
        """Format as the id of a server-sent event."""
        return f"{self.attempt}.{self.offset}.{self.reports}"

    @classmethod
    def parse(cls, text: str | None) -> StreamCursor:
        """Parse a Last-Event-ID; any text that this node did not send is the beginning."""
        found = _CURSOR.fullmatch(text or "")
        return cls(*(int(part) for part in found.groups())) if found else cls()


@dataclass(slots=True)
class LiveFeed:
    """What one run has shown so far. The sandbox bounds the output: at most `limits.output_bytes` ever arrive."""

    attempt: int
    level: LiveOutput
    wake: Callable[[], None]
    output: bytearray = field(default_factory=bytearray)
    progress: tuple[float, float] | None = None
    """(done, total). At level `progress`: whole percent, rising only, so that a script cannot spell its data in the numbers."""
    reports: int = 0

    def record_event(self, event: SandboxEvent) -> None:
        """Keep of an event what the level lets through, and wake the readers if that is something."""
        if isinstance(event, OutputWritten) and self.level is LiveOutput.FULL:
            self.output += event.data
        elif isinstance(event, ProgressReported) and self.level is not LiveOutput.NONE:
            shown = _reduced(event, self.level)
            if shown is None or (self.level is LiveOutput.PROGRESS and self.progress is not None and shown <= self.progress):
                return
            self.progress = shown
            self.reports += 1
        else:
            return
        self.wake()

    def read_since(self, cursor: StreamCursor) -> tuple[bytes, tuple[float, float] | None, StreamCursor]:
        """Return what a reader at `cursor` has not seen: output, the newest progress, and its cursor afterwards."""
        if cursor.attempt != self.attempt or cursor.offset > len(self.output) or cursor.reports > self.reports:
            cursor = StreamCursor(self.attempt)
        news = bytes(self.output[cursor.offset :])
        progress = self.progress if self.reports > cursor.reports else None
        return news, progress, StreamCursor(self.attempt, cursor.offset + len(news), self.reports)


def _reduced(event: ProgressReported, level: LiveOutput) -> tuple[float, float] | None:
    """Reduce a progress report to what the level shows; None: nothing."""
    done, total = event.done, event.total
    if not (math.isfinite(done) and math.isfinite(total)):
        return None
    if level is LiveOutput.FULL:
        return done, total
    if total <= 0 or done < 0:
        return None
    return float(min(int(100 * min(done / total, 1.0)), 100)), 100.0


async def record_shown(computation_id: str, database: Database, clock: Clock) -> bool:
    """Note durably that something of a run leaves before its end: from then on an interruption does not give its charge back.

    False when the computation does not run any more and has no result to show.
    """
    async with database.unit_of_work() as work:
        before = await work.jobs.find_job(computation_id)
        if await work.jobs.mark_shown(computation_id, clock.now()):
            if before is not None and before.mode is Mode.LIVE and before.live_at is None:
                await work.audit.append_entry("output-shown", clock.now(), BY_NODE, audit_job(before))
            await work.commit()
            return True
        job = await work.jobs.find_job(computation_id)
    return job is not None and job.state in TERMINAL - {JobState.CANCELLED} and job.removed_at is None


class JobNotifier:
    """Wakes those who wait for a computation to move on, and holds the feeds and cancellations of running ones."""

    def __init__(self) -> None:
        """Start with nobody waiting."""
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._cancels: dict[str, asyncio.Event] = {}
        self._feeds: dict[str, LiveFeed] = {}
        self.stopping = False

    def stop_waiting(self) -> None:
        """Wake everybody because the node stops: what they wait for will not happen any more."""
        self.stopping = True
        for computation_id in list(self._waiting):
            self.notify(computation_id)

    def notify(self, computation_id: str) -> None:
        """Wake who waits for a computation: its row moved on, or it wrote something that may be seen."""
        for event in self._waiting.get(computation_id, ()):
            event.set()

    @contextmanager
    def subscribed(self, computation_id: str) -> Iterator[asyncio.Event]:
        """Yield an event that `notify` sets. Read the row AFTER entering: an earlier reading could miss a change."""
        event = asyncio.Event()
        self._waiting[computation_id].add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[computation_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[computation_id]

    def open_feed(self, computation_id: str, feed: LiveFeed) -> None:
        """Make what a run shows readable from its start on."""
        self._feeds[computation_id] = feed

    def find_feed(self, computation_id: str) -> LiveFeed | None:
        """Return what a running computation has shown so far; None when it does not run."""
        return self._feeds.get(computation_id)

    def close_feed(self, computation_id: str) -> None:
        """Forget the feed and the cancellation of a run that is over."""
        self._feeds.pop(computation_id, None)
        self._cancels.pop(computation_id, None)

    def cancel_event(self, computation_id: str) -> asyncio.Event:
        """Return the event that is set when the Spender asks to cancel a running computation."""
        return self._cancels.setdefault(computation_id, asyncio.Event())


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event of a subscription, at most `seconds`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
