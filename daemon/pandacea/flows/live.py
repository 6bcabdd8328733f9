"""What a running computation shows to its Spender, as far as the product allows, and how a reader comes back to where it was."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pandacea.domain.job import TERMINAL, JobState
from pandacea.domain.product import LiveOutput
from pandacea.flows.books import Books
from pandacea.flows.ports import Clock, OutputWritten, Progressed, SandboxEvent

_PLACE: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Place:
    """How far a reader has come: the try of the job, bytes of its output, reports of its progress."""

    attempt: int = 0
    offset: int = 0
    reports: int = 0

    def __str__(self) -> str:
        """As the id of a server-sent event."""
        return f"{self.attempt}.{self.offset}.{self.reports}"

    @classmethod
    def read(cls, text: str | None) -> Place:
        """From a Last-Event-ID; anything that is none of ours is the beginning."""
        found = _PLACE.fullmatch(text or "")
        return cls(*(int(part) for part in found.groups())) if found else cls()


@dataclass(slots=True)
class Feed:
    """What one run showed so far. The output is bounded by the box: no more than `limits.output_bytes` ever arrives."""

    attempt: int
    level: LiveOutput
    wake: Callable[[], None]
    output: bytearray = field(default_factory=bytearray)
    progress: tuple[float, float] | None = None
    """(done, total). At level `progress`: whole percent, rising only, so that a script cannot spell its data in the numbers."""
    reports: int = 0

    def take(self, event: SandboxEvent) -> None:
        """Keep what the level lets through."""
        if isinstance(event, OutputWritten) and self.level is LiveOutput.FULL:
            self.output += event.data
        elif isinstance(event, Progressed) and self.level is not LiveOutput.NONE:
            shown = _shown(event, self.level)
            if shown is None or (self.level is LiveOutput.PROGRESS and self.progress is not None and shown <= self.progress):
                return
            self.progress = shown
            self.reports += 1
        else:
            return
        self.wake()

    def since(self, place: Place) -> tuple[bytes, tuple[float, float] | None, Place]:
        """What a reader at `place` has not seen: output, the newest progress, and where it stands afterwards."""
        if place.attempt != self.attempt or place.offset > len(self.output) or place.reports > self.reports:
            place = Place(self.attempt)
        news = bytes(self.output[place.offset :])
        progress = self.progress if self.reports > place.reports else None
        return news, progress, Place(self.attempt, place.offset + len(news), self.reports)


def _shown(event: Progressed, level: LiveOutput) -> tuple[float, float] | None:
    done, total = event.done, event.total
    if not (math.isfinite(done) and math.isfinite(total)):
        return None
    if level is LiveOutput.FULL:
        return done, total
    if total <= 0 or done < 0:
        return None
    return float(min(int(100 * min(done / total, 1.0)), 100)), 100.0


async def may_show(computation_id: str, books: Books, clock: Clock) -> bool:
    """Note, durably, that something of a run leaves before its end: an interruption no longer gives its charge back.

    False when the computation does not run any more and has no result to show.
    """
    async with books.write() as work:
        if await work.jobs.show(computation_id, clock.now()):
            await work.commit()
            return True
        job = await work.jobs.get(computation_id)
    return job is not None and job.state in TERMINAL - {JobState.CANCELLED} and job.removed_at is None
