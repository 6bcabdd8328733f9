"""What a running computation shows to its Spender, as far as the product allows, and how a reader comes back to where it was."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pandacea.domain.job import TERMINAL, JobState
from pandacea.domain.product import LiveOutput
from pandacea.flows.ports import Clock, OutputWritten, ProgressReported, SandboxEvent
from pandacea.flows.unit_of_work import Database

_PLACE: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class StreamCursor:
    """How far a reader has come: the try of the job, bytes of its output, reports of its progress."""

    attempt: int = 0
    offset: int = 0
    reports: int = 0

    def __str__(self) -> str:
        """As the id of a server-sent event."""
        return f"{self.attempt}.{self.offset}.{self.reports}"

    @classmethod
    def parse(cls, text: str | None) -> StreamCursor:
        """From a Last-Event-ID; anything that is none of ours is the beginning."""
        found = _PLACE.fullmatch(text or "")
        return cls(*(int(part) for part in found.groups())) if found else cls()


@dataclass(slots=True)
class LiveFeed:
    """What one run showed so far. The output is bounded by the box: no more than `limits.output_bytes` ever arrives."""

    attempt: int
    level: LiveOutput
    wake: Callable[[], None]
    output: bytearray = field(default_factory=bytearray)
    progress: tuple[float, float] | None = None
    """(done, total). At level `progress`: whole percent, rising only, so that a script cannot spell its data in the numbers."""
    reports: int = 0

    def record_event(self, event: SandboxEvent) -> None:
        """Keep what the level lets through."""
        if isinstance(event, OutputWritten) and self.level is LiveOutput.FULL:
            self.output += event.data
        elif isinstance(event, ProgressReported) and self.level is not LiveOutput.NONE:
            shown = _shown(event, self.level)
            if shown is None or (self.level is LiveOutput.PROGRESS and self.progress is not None and shown <= self.progress):
                return
            self.progress = shown
            self.reports += 1
        else:
            return
        self.wake()

    def read_since(self, cursor: StreamCursor) -> tuple[bytes, tuple[float, float] | None, StreamCursor]:
        """What a reader at `place` has not seen: output, the newest progress, and where it stands afterwards."""
        if cursor.attempt != self.attempt or cursor.offset > len(self.output) or cursor.reports > self.reports:
            cursor = StreamCursor(self.attempt)
        news = bytes(self.output[cursor.offset :])
        progress = self.progress if self.reports > cursor.reports else None
        return news, progress, StreamCursor(self.attempt, cursor.offset + len(news), self.reports)


def _shown(event: ProgressReported, level: LiveOutput) -> tuple[float, float] | None:
    done, total = event.done, event.total
    if not (math.isfinite(done) and math.isfinite(total)):
        return None
    if level is LiveOutput.FULL:
        return done, total
    if total <= 0 or done < 0:
        return None
    return float(min(int(100 * min(done / total, 1.0)), 100)), 100.0


async def record_shown(computation_id: str, database: Database, clock: Clock) -> bool:
    """Note, durably, that something of a run leaves before its end: an interruption no longer gives its charge back.

    False when the computation does not run any more and has no result to show.
    """
    async with database.unit_of_work() as work:
        if await work.jobs.mark_shown(computation_id, clock.now()):
            await work.commit()
            return True
        job = await work.jobs.find_job(computation_id)
    return job is not None and job.state in TERMINAL - {JobState.CANCELLED} and job.removed_at is None
