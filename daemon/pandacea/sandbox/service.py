"""Implements the Sandbox port over any backend: acquire an instance, run one job on it, destroy it."""

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
from pandacea.flows.ports import ConversionJob, SandboxEvent, SandboxIdentity, SandboxJob
from pandacea.sandbox.backend import InstanceShape, SandboxBackend, SandboxInstance
from pandacea.sandbox.conversion import run_conversion_job
from pandacea.sandbox.outcome import ExternalCause, build_outcome, memory_limit_detail
from pandacea.sandbox.pool import InstancePool
from pandacea.sandbox.results import ResultsWriter
from pandacea.sandbox.script_run import RunState, receive_run, send_job
from pandacea.sandbox.selftest import ProbeResult, run_self_test
from pandacea.sandbox.session import GuestLostError, OutOfMemoryError, TimeLimitError, find_host_failure, run_exchange
from pandacea.sandbox.settings import PoolSettings
from pandacea.tasks import get_logger

_CREATE_MARGIN_SECONDS: Final = 15.0
"""Beyond `boot_seconds`, after which a backend itself gives up: the time it has to remove an instance that never answered."""
_DESTROY_SECONDS: Final = 60.0
"""How long destroying an instance may take before the log says that one is left."""


class SandboxService:
    """Implements `flows.ports.Sandbox` and `flows.ports.TableConverter` with instances of one backend and a pool of warm ones."""

    def __init__(self, backend: SandboxBackend, pool: PoolSettings, *, state_dir: Path, self_tested: bool) -> None:
        """`self_tested`: whether `start` runs the self-test; `state_dir` holds its files."""
        self.backend, self._settings = backend, pool
        self._state_dir, self._self_tested = state_dir, self_tested
        self.probes: tuple[ProbeResult, ...] = ()
        """What the self-test of `start` found."""
        self.pool = InstancePool(backend, pool)
        self._destroy_tasks: set[asyncio.Task[None]] = set()

    @property
    def warnings(self) -> list[str]:
        """What this machine does not allow and what is used instead; one sentence each, known after `start`."""
        return self.backend.warnings

    async def start(self) -> SandboxIdentity:
        InstanceShape.from_limits(self._settings.limits)
        try:
            identity = await self.backend.open()
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
                uids=self.backend.uids,
                leaves_no_access_time=self.backend.leaves_no_access_time,
            )
        except Unavailable as error:
            raise Broken(f"no sandbox can be created here: {error.detail}") from error
        failed = [f"{probe.name} ({probe.detail})" for probe in self.probes if not probe.passed]
        if failed:
            raise Broken(f"the {identity.kind} sandbox failed its self-test, so nothing is served: {'; '.join(failed)}")

    async def stop(self) -> None:
        await self.pool.close()
        await asyncio.gather(*self._destroy_tasks, return_exceptions=True)
        await self.backend.close()

    async def run_job(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        with self.pool.count_running_job(job.limits.memory_bytes):
            instance = await self._acquire_instance(job.limits)
            try:
                return await self._run_on_instance(instance, job, on_event)
            finally:
                self._destroy_in_background(instance)

    async def convert_table(self, job: ConversionJob, on_progress: Callable[[float, float], None]) -> TableShape:
        with self.pool.count_running_job(job.limits.memory_bytes):
            instance = await self._acquire_instance(job.limits)
            try:
                return await run_conversion_job(instance, job, on_progress)
            finally:
                self._destroy_in_background(instance)

    async def _acquire_instance(self, limits: Limits) -> SandboxInstance:
        """Return an instance within a bounded time, even if the engine hangs. Raises Unavailable."""
        try:
            async with asyncio.timeout(self._settings.boot_seconds + _CREATE_MARGIN_SECONDS):
                return await self.pool.acquire(InstanceShape.from_limits(limits))
        except TimeoutError as error:
            raise Unavailable("no sandbox was created in time, and an unfinished one could not be removed") from error

    def _destroy_in_background(self, instance: SandboxInstance) -> None:
        """Destroy an instance without making the result wait for it; `stop` waits."""
        task = asyncio.create_task(_destroy(instance))
        self._destroy_tasks.add(task)
        task.add_done_callback(self._destroy_tasks.discard)

    async def _run_on_instance(
        self, instance: SandboxInstance, job: SandboxJob, on_event: Callable[[SandboxEvent], None]
    ) -> Outcome:
        started = time.monotonic()
        run_state = RunState(job.limits, ResultsWriter(job.results_dir, job.limits))
        external_cause = await self._run_to_end(instance, job, run_state, on_event)
        seconds = time.monotonic() - started
        try:
            outcome = build_outcome(run_state, seconds, external_cause)
        except OSError as error:  # the last file did not reach the disk
            outcome = build_outcome(run_state, seconds, _not_stored(run_state, error))
        if not outcome.code_started and outcome.failure in {Failure.GUEST_DIED, Failure.SANDBOX_FAILED}:
            raise Unavailable(f"the sandbox failed before any user code ran: {outcome.detail}")
        return outcome

    async def _run_to_end(
        self, instance: SandboxInstance, job: SandboxJob, run_state: RunState, on_event: Callable[[SandboxEvent], None]
    ) -> ExternalCause | None:
        """Run a job and return the cause of its end as observed from outside the sandbox; None when the guest's report stands."""
        limits = job.limits

        def was_killed() -> bool:
            return run_state.ended is not None and run_state.ended.exit_status == -signal.SIGKILL

        try:
            exchange = self._send_and_receive(instance, job, run_state, on_event)
            await run_exchange(instance, exchange, limits.time_seconds, was_killed=was_killed)
        except OutOfMemoryError:
            return ExternalCause(Failure.MEMORY_LIMIT, memory_limit_detail(limits))
        except TimeLimitError:
            return ExternalCause(
                Failure.TIME_LIMIT, f"The script did not end within time_seconds={limits.time_seconds:g} and was ended."
            )
        except OSError as error:
            return _not_stored(run_state, error)
        except GuestLostError as error:
            failure = await find_host_failure(instance)
            if failure is not None:
                return ExternalCause(Failure.SANDBOX_FAILED, failure)
            return ExternalCause(
                Failure.GUEST_DIED,
                f"The sandbox ended before its result was complete ({error}); this counts as the script's doing.",
            )
        return None

    async def _send_and_receive(
        self, instance: SandboxInstance, job: SandboxJob, run_state: RunState, on_event: Callable[[SandboxEvent], None]
    ) -> None:
        try:
            await send_job(instance, job, self.backend.open_input)
        except OSError as error:
            raise GuestLostError(f"the guest did not take the job: {error}") from error
        await receive_run(instance.sock, run_state, on_event)


async def _destroy(instance: SandboxInstance) -> None:
    """Destroy an instance; where that fails, the log says so and the result is not affected."""
    try:
        async with asyncio.timeout(_DESTROY_SECONDS):
            await instance.destroy()
    except Exception:  # noqa: BLE001 - logged: the run has ended whatever becomes of its sandbox
        get_logger().exception(
            "sandbox.instance_not_destroyed", meaning="something of it may be left on this machine until the node starts again"
        )


def _not_stored(run_state: RunState, error: OSError) -> ExternalCause:
    """Return the cause of a run whose artifacts this machine's disk did not take: full, out of inodes, over a quota or broken."""
    get_logger().error("sandbox.result_not_stored", folder=str(run_state.results.folder), reason=repr(error))
    return ExternalCause(Failure.SANDBOX_FAILED, not_stored_detail(error))
