"""The Sandbox port over any kind of box: take one, run one job in it, destroy it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Failure, Outcome, not_stored_detail
from pandacea.domain.table import TableShape
from pandacea.errors import Broken, Unavailable
from pandacea.flows.conversion import ConversionJob
from pandacea.flows.ports import SandboxEvent, SandboxIdentity, SandboxJob
from pandacea.sandbox.backend import InstanceShape, SandboxBackend, SandboxInstance
from pandacea.sandbox.conversion import run_conversion_job
from pandacea.sandbox.outcome import build_outcome, memory_limit_detail
from pandacea.sandbox.pool import InstancePool
from pandacea.sandbox.results import ResultsWriter
from pandacea.sandbox.selftest import ProbeResult, run_self_test
from pandacea.sandbox.session import GuestLostError, RunState, receive_run, send_job
from pandacea.sandbox.settings import PoolSettings
from pandacea.tasks import get_logger

_CREATE_MARGIN_SECONDS: Final = 15.0
"""Beyond `boot_seconds`, in which a maker gives up by itself: what it needs to remove a box that never spoke."""
_HOST_FAILURE_SECONDS: Final = 15.0
"""So long an engine may take to say why a box ended."""
_DESTROY_SECONDS: Final = 60.0
"""So long the end of a box may take before it is said in the log that one is left."""
_OOM_GRACE_SECONDS: Final = 1.0  # a kill and the report of its cause travel on different roads


class SandboxService:
    """Implements `flows.ports.Sandbox` with boxes from one maker and a pool of warm ones."""

    def __init__(
        self, backend: SandboxBackend, pool: PoolSettings, open_input: Callable[[Path], int], *, state_dir: Path, self_tested: bool
    ) -> None:
        self._backend, self._settings, self._open_input = backend, pool, open_input
        self._state_dir, self._self_tested = state_dir, self_tested
        self.probes: tuple[ProbeResult, ...] = ()
        """What the self-test of `open` found."""
        self.pool = InstancePool(backend, pool)
        self._destroy_tasks: set[asyncio.Task[None]] = set()

    @property
    def warnings(self) -> list[str]:
        """What this machine does not allow and what holds instead; one sentence each, known after `open`."""
        return self._backend.warnings

    async def start(self) -> SandboxIdentity:
        InstanceShape.from_limits(self._settings.limits)
        try:
            identity = await self._backend.open()
            if self._self_tested:
                await self._run_self_test(identity)
        except BaseException:
            await self.stop()
            raise
        self.pool.start()
        return identity

    async def _run_self_test(self, identity: SandboxIdentity) -> None:
        try:
            self.probes = await run_self_test(
                self.run_job,
                self._settings.limits,
                self._state_dir,
                uids=self._backend.uids,
                leaves_no_access_time=self._backend.leaves_no_access_time,
            )
        except Unavailable as error:
            raise Broken(f"no box can be made here: {error.detail}") from error
        broken = [f"{probe.name} ({probe.detail})" for probe in self.probes if not probe.passed]
        if broken:
            raise Broken(f"the {identity.kind} sandbox does not hold, so nothing is served: {'; '.join(broken)}")

    async def stop(self) -> None:
        await self.pool.close()
        await asyncio.gather(*self._destroy_tasks, return_exceptions=True)
        await self._backend.close()

    async def run_job(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        with self.pool.count_running_job(job.limits.memory_bytes):
            box = await self._acquire_instance(job.limits)
            try:
                return await self._run_on_instance(box, job, on_event)
            finally:
                self._destroy_in_background(box)

    async def convert_table(self, job: ConversionJob, on_progress: Callable[[float, float], None]) -> TableShape:
        """Implements `flows.conversion.Converter`: a box of its own for one file."""
        with self.pool.count_running_job(job.limits.memory_bytes):
            box = await self._acquire_instance(job.limits)
            try:
                return await run_conversion_job(box, job, on_progress)
            finally:
                self._destroy_in_background(box)

    async def _acquire_instance(self, limits: Limits) -> SandboxInstance:
        """A box within a bounded time, whatever hangs beneath. Raises Unavailable."""
        try:
            async with asyncio.timeout(self._settings.boot_seconds + _CREATE_MARGIN_SECONDS):
                return await self.pool.acquire(InstanceShape.from_limits(limits))
        except TimeoutError as error:
            raise Unavailable("no box was made in time, and what was begun of one could not be removed") from error

    def _destroy_in_background(self, box: SandboxInstance) -> None:
        """Destroy a box without making the result wait for it; `close` waits."""
        task = asyncio.create_task(_destroy(box))
        self._destroy_tasks.add(task)
        task.add_done_callback(self._destroy_tasks.discard)

    async def _run_on_instance(self, box: SandboxInstance, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        started = time.monotonic()
        account = RunState(job.limits, ResultsWriter(job.results_dir, job.limits))
        talk = asyncio.create_task(self._exchange(box, job, account, on_event))
        memory = asyncio.create_task(box.out_of_memory.wait())
        try:
            await asyncio.wait({talk, memory}, timeout=job.limits.time_seconds, return_when=asyncio.FIRST_COMPLETED)
            ending = await self._external_cause(box, account, talk)
        finally:
            for task in (talk, memory):
                task.cancel()
            await asyncio.gather(talk, memory, return_exceptions=True)
        seconds = time.monotonic() - started
        try:
            outcome = build_outcome(account, seconds, ending)
        except OSError as problem:  # the last file did not reach the disk
            outcome = build_outcome(account, seconds, _not_stored(account, problem))
        if not outcome.code_started and outcome.failure in {Failure.GUEST_DIED, Failure.SANDBOX_FAILED}:
            raise Unavailable(f"the box failed before any user code ran: {outcome.detail}")
        return outcome

    async def _exchange(
        self, box: SandboxInstance, job: SandboxJob, account: RunState, on_event: Callable[[SandboxEvent], None]
    ) -> None:
        try:
            await send_job(box, job, self._open_input)
        except OSError as error:
            raise GuestLostError(f"the guest did not take the job: {error}") from error
        await receive_run(box.sock, account, on_event)

    async def _external_cause(
        self, box: SandboxInstance, account: RunState, talk: asyncio.Task[None]
    ) -> tuple[Failure, str] | None:
        """Return the cause as seen from outside the box, or None when the guest's own account stands."""
        limits = account.limits
        lost = talk.exception() if talk.done() else None
        killed = account.ended is not None and account.ended.exit_status == -signal.SIGKILL
        if lost is not None or killed:
            await _wait_at_most(box.out_of_memory, _OOM_GRACE_SECONDS)
        if box.out_of_memory.is_set():
            return Failure.MEMORY_LIMIT, memory_limit_detail(limits)
        if not talk.done():
            return Failure.TIME_LIMIT, f"The script did not end within time_seconds={limits.time_seconds:g} and was ended."
        if lost is None:
            return None
        if isinstance(lost, OSError):
            return _not_stored(account, lost)
        if not isinstance(lost, GuestLostError):
            raise lost
        failure = await _host_failure(box)
        if failure is not None:
            return Failure.SANDBOX_FAILED, failure
        return Failure.GUEST_DIED, f"The box ended before its result was complete ({lost}); this counts as the script's doing."


async def _host_failure(box: SandboxInstance) -> str | None:
    try:
        async with asyncio.timeout(_HOST_FAILURE_SECONDS):
            return await box.host_failure()
    except TimeoutError:
        return "The container engine does not answer any more."


async def _destroy(box: SandboxInstance) -> None:
    """Destroy a box; one that cannot be destroyed is somebody's to look for, not the result's to wait for."""
    try:
        async with asyncio.timeout(_DESTROY_SECONDS):
            await box.destroy()
    except Exception:  # noqa: BLE001 - said in the log: the run has ended whatever becomes of its box
        get_logger().exception(
            "box.not_destroyed", meaning="something of it may be left on this machine until the node starts again"
        )


def _not_stored(account: RunState, problem: OSError) -> tuple[Failure, str]:
    """The end of a run whose artifacts this machine's disk did not take: full, out of inodes, over a quota or broken."""
    get_logger().error("result.not_stored", folder=str(account.results.folder), problem=repr(problem))
    return Failure.SANDBOX_FAILED, not_stored_detail(problem)


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
