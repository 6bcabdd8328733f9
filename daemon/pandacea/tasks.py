"""Supervise background tasks that never end by themselves: one that does ends the node, or is started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar

from pandacea.errors import Broken, DaemonError, Unavailable

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")

RESTART_SECONDS: Final = 1.0
"""Between the end of a part and its next start."""
IDLE_SECONDS: Final = 1.0
"""Between two steps of a loop that had nothing to do."""
TOLERATED_SECONDS: Final = 5.0
"""Before the next step of a loop whose step failed in a way that may pass."""

TaskBody = Coroutine[Any, Any, object]
"""What a task runs. Only the event loop sees what a coroutine yields and is sent."""


def get_logger() -> FilteringBoundLogger:
    """Return the log. It is imported here because the sandbox's tests run its modules with the standard library alone."""
    import structlog

    log: FilteringBoundLogger = structlog.get_logger(__name__)
    return log


class TaskEnded(Exception):
    """A background task of the node ended by itself; none ever should."""


class TaskSupervisor:
    """Runs named tasks that may not end before `stop_tasks`: not by returning, by an exception, or by a foreign cancellation."""

    def __init__(self) -> None:
        """Start with no task."""
        self._tasks: dict[asyncio.Task[object], str] = {}
        self._first: tuple[str, asyncio.Task[object]] | None = None
        self._ended = asyncio.Event()

    @property
    def names(self) -> list[str]:
        """The names of the tasks that run."""
        return list(self._tasks.values())

    @property
    def first_ended(self) -> str | None:
        """The name of the first task that ended by itself."""
        return None if self._first is None else self._first[0]

    def start_task(self, body: TaskBody, name: str) -> asyncio.Task[object]:
        """Run `body` as a task until `stop_tasks`."""
        task: asyncio.Task[object] = asyncio.create_task(body, name=name)
        self._tasks[task] = name
        task.add_done_callback(self._note_end)
        return task

    async def stop_tasks(self, *tasks: asyncio.Task[object]) -> None:
        """Cancel the given tasks, or all, and wait for their ends."""
        ending = tasks or tuple(self._tasks)
        for task in ending:
            self._tasks.pop(task, None)
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def wait_for_end(self) -> NoReturn:
        """Wait while every task runs; then raise what ended the first.

        Raises:
            Exception: the task's own.
            TaskEnded: it returned, or something other than `stop_tasks` cancelled it.
        """
        await self._ended.wait()
        assert self._first is not None
        name, task = self._first
        if task.cancelled():
            raise TaskEnded(f"The node's task {name} was cancelled, and nobody asked for that.")
        problem = task.exception()
        if problem is not None:
            raise problem
        raise TaskEnded(f"The node's task {name} returned, and it never should.")

    def _note_end(self, task: asyncio.Task[object]) -> None:
        name = self._tasks.pop(task, None)
        if name is None:
            return  # it was stopped
        problem = None if task.cancelled() else task.exception()
        if isinstance(problem, DaemonError):  # a sentence for the operator, not a defect of ours
            get_logger().error("task.ended", task=name, cancelled=False, reason=problem.detail)
        else:
            get_logger().error("task.ended", task=name, cancelled=task.cancelled(), exc_info=problem)
        if self._first is None:
            self._first = (name, task)
            self._ended.set()


async def run_until_one_ends(bodies: dict[str, TaskBody]) -> NoReturn:
    """Run tasks that never end, by name; the first that ends, however, ends all of them, and its exception is raised.

    An `asyncio.TaskGroup` would go on without a task that returned or was cancelled.
    """
    supervisor = TaskSupervisor()
    try:
        for name, body in bodies.items():
            supervisor.start_task(body, name)
        await supervisor.wait_for_end()
    finally:
        await supervisor.stop_tasks()


class RestartedTask:
    """One background task that is started again whenever it ends before `stop`; each end is logged and counted."""

    def __init__(self, name: str, make_body: Callable[[], TaskBody], *, restart_seconds: float = RESTART_SECONDS) -> None:
        """Take what makes the coroutine of each start, and the seconds between an end and the next start."""
        self.name = name
        self.restarts = 0
        self._make_body = make_body
        self._restart_seconds = restart_seconds
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        """Whether the task runs at this moment."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start the task unless it runs."""
        if not self.running and self._timer is None:
            self._begin()

    async def stop(self) -> None:
        """Cancel the task and wait for its end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _begin(self) -> None:
        self._timer = None
        self._task = asyncio.create_task(self._make_body(), name=self.name)
        self._task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[object]) -> None:
        problem = None if task.cancelled() else task.exception()
        if task is not self._task:
            return  # it was stopped
        self.restarts += 1
        get_logger().error("task.restarts", task=self.name, cancelled=task.cancelled(), restarts=self.restarts, exc_info=problem)
        self._timer = asyncio.get_running_loop().call_later(self._restart_seconds, self._begin)


def log_task_failure(task: asyncio.Task[object]) -> None:
    """Log what a task raised; add it as the done-callback of a task that nobody waits for."""
    if not task.cancelled() and (problem := task.exception()) is not None:
        get_logger().error("task.failed", task=task.get_name(), exc_info=problem)


class Loop:
    """Repeats a step while it has work; sleeps until woken, or for the idle interval, when it has none.

    Errors that may pass (`tolerated`) are logged and waited out: the next step may succeed. Any other error ends the loop, and with it
    the node.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[object]],
        *,
        idle: float = IDLE_SECONDS,
        retry: float = TOLERATED_SECONDS,
        tolerated: tuple[type[DaemonError], ...] = (Unavailable, Broken),
        log_event: str = "loop.waits",
        log_level: Literal["info", "warning"] = "warning",
    ) -> None:
        """Prepare the loop; `run` runs it.

        Args:
            name: of the loop, as the log shows it.
            step: returns something true when it did work and may have more.
            idle: seconds between two steps when there is nothing to do.
            retry: seconds before the next step after a tolerated error.
            tolerated: errors that do not end the loop.
            log_event: what a tolerated error is logged as.
            log_level: its level.
        """
        self.name = name
        self._step = step
        self._idle = idle
        self._retry = retry
        self._tolerated = tolerated
        self._log_event = log_event
        self._log_level = log_level
        self._wake = asyncio.Event()
        self._since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """How long the current step has lasted, in seconds; 0 between two steps."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def wake(self) -> None:
        """Run the next step now instead of after the idle interval."""
        self._wake.set()

    async def run(self) -> NoReturn:
        """Run the step repeatedly until cancelled."""
        while True:
            self._wake.clear()
            self._since = time.monotonic()
            try:
                busy = bool(await self._step())
                pause = self._idle
            except self._tolerated as error:
                getattr(get_logger(), self._log_level)(self._log_event, loop=self.name, reason=error.detail)
                busy, pause = False, self._retry
            self._since = None
            if not busy:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)


async def run_every(seconds: float, step: Callable[[], Awaitable[object]], *, name: str, log_event: str) -> NoReturn:
    """Run a step at once and then every `seconds` until cancelled; `Unavailable` is logged and waited out.

    Args:
        seconds: between the end of one step and the next, whatever it returned.
        step: what to run.
        name: of the loop, as the log shows it.
        log_event: what `Unavailable` is logged as.
    """

    async def run_step() -> None:
        await step()

    loop = Loop(name, run_step, idle=seconds, retry=seconds, tolerated=(Unavailable,), log_event=log_event, log_level="info")
    await loop.run()


async def retry_until_available(
    attempt: Callable[[], Awaitable[T]],
    *,
    pause: Callable[[], float],
    log_event: str | None = None,
    log_level: Literal["info", "warning"] = "warning",
    on_failure: Callable[[Unavailable], None] = lambda _error: None,
) -> T:
    """Repeat an attempt until it does not raise `Unavailable`; return its result.

    Args:
        attempt: what to try.
        pause: seconds before the next attempt.
        log_event: what a failure is logged as; None: it is not logged.
        log_level: its level.
        on_failure: called with each failure, before the pause.
    """
    while True:
        try:
            return await attempt()
        except Unavailable as error:
            if log_event is not None:
                getattr(get_logger(), log_level)(log_event, reason=error.detail)
            on_failure(error)
            await asyncio.sleep(pause())
