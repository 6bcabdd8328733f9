"""A sandbox that the test plays: each run waits for what the test tells it to do."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from pandacea.domain.outcome import Artifact, Outcome
from pandacea.flows.ports import CodeStarted, OutputWritten, ProgressReported, SandboxEvent, SandboxIdentity, SandboxJob


@dataclass
class Play:
    """One run: what the test tells it to do."""

    job: SandboxJob
    on_event: Callable[[SandboxEvent], None]
    end: asyncio.Future[Outcome]
    output: bytearray = field(default_factory=bytearray)

    def writes(self, data: bytes) -> None:
        self.output += data
        self.on_event(OutputWritten(data))

    def progresses(self, done: float, total: float) -> None:
        self.on_event(ProgressReported(done, total))

    def ends(self, outcome: Outcome | None = None, /, **artifacts: bytes) -> None:
        """End, leaving artifacts (`name=bytes`; `__` in a name is a dot)."""
        kept = []
        for place, (name, data) in enumerate(artifacts.items()):
            path = self.job.results_dir / str(place)
            path.write_bytes(data)
            kept.append(Artifact(name.replace("__", "."), path, len(data), hashlib.sha256(data).hexdigest()))
        done = outcome or Outcome(
            None, "The script ended by itself.", bytes(self.output), tuple(kept), exit_status=0, code_started=True
        )
        self.end.set_result(done)


@dataclass
class Stage:
    """`flows.ports.Sandbox`: each run becomes a `Play` that the test fetches with `next_play`."""

    plays: asyncio.Queue[Play] = field(default_factory=asyncio.Queue)
    destroyed: list[str] = field(default_factory=list)
    starts: bool = True
    """Whether a run reaches the script: False, and it ends before its first byte."""
    lingers: asyncio.Event | None = None
    """When set to an event: a run that is cancelled is not over before the event, as a sandbox that is slow to be destroyed."""

    async def start(self) -> SandboxIdentity:
        return SandboxIdentity("stage", "sha256:" + "0" * 64, "0" * 64)

    async def run_job(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        play = Play(job, on_event, asyncio.get_running_loop().create_future())
        if self.starts:
            on_event(CodeStarted())
        self.plays.put_nowait(play)
        try:
            return await play.end
        except asyncio.CancelledError:
            if self.lingers is not None:
                await self.lingers.wait()
            raise
        finally:
            self.destroyed.append(job.computation_id)

    async def stop(self) -> None:
        """Do nothing: nothing was opened."""

    async def next_play(self) -> Play:
        """The next run, once it began."""
        return await asyncio.wait_for(self.plays.get(), 10)
