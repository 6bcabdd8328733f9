"""Background work that never ends by itself: whichever part of it dies is noticed, and ends the node or is started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Literal, NoReturn, TypeVar

from pandacea.errors import Broken, DaemonError, Unavailable

T = TypeVar("T")

RESTART_SECONDS: Final = 1.0
"""Between the end of a part and its next start."""
IDLE_SECONDS: Final = 1.0
"""Between two steps of a loop that had nothing to do."""
TOLERATED_SECONDS: Final = 5.0
"""Before the next step of a loop whose step failed in a way that may pass."""

TaskBody = Coroutine[Any, Any, Any]


def get_logger() -> Any:
    """Return the log; imported when there is something to say, for the sandbox runs with the standard library alone where it is tested."""
    import structlog

    return structlog.get_logger(__name__)


class TaskEnded(Exception):
    """A part of the node ended by itself, which none ever should."""


class TaskSupervisor:
    """Named tasks of which none may end before it is told to: by returning, by an exception, or cancelled by nobody of ours."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self._first: tuple[str, asyncio.Task[Any]] | None = None
        self._ended = asyncio.Event()

    @property
    def names(self) -> list[str]:
        """Names of what runs."""
        return list(self._tasks.values())

    @property
    def first_ended(self) -> str | None:
        """The name of the first part that ended by itself."""
        return None if self._first is None else self._first[0]

    def start_task(self, body: TaskBody, name: str) -> asyncio.Task[Any]:
        """Run `work` until `stop`."""
        task: asyncio.Task[Any] = asyncio.create_task(body, name=name)
        self._tasks[task] = name
        task.add_done_callback(self._note_end)
        return task

    async def stop_tasks(self, *tasks: asyncio.Task[Any]) -> None:
        """End some of the tasks, or all, and wait for their ends."""
        ending = tasks or tuple(self._tasks)
        for task in ending:
            self._tasks.pop(task, None)
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def wait_for_end(self) -> NoReturn:
        """Wait for as long as every part runs; then raise what ended the first.

        Raises:
            Exception: the part's own.
            TaskEnded: it returned, or was cancelled by nobody of ours.
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

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        name = self._tasks.pop(task, None)
        if name is None:
            return  # it was stopped
        problem = None if task.cancelled() else task.exception()
        if isinstance(problem, DaemonError):  # a sentence for the operator, and no defect of ours
            get_logger().error("task.ended", task=name, cancelled=False, problem=problem.detail)
        else:
            get_logger().error("task.ended", task=name, cancelled=task.cancelled(), exc_info=problem)
        if self._first is None:
            self._first = (name, task)
            self._ended.set()


async def run_until_one_ends(parts: dict[str, TaskBody]) -> NoReturn:
    """Run parts that never end, by name; the first that ends, however, ends all of them and its exception is raised.

    An `asyncio.TaskGroup` would go on without a part that returned or was cancelled.
    """
    together = TaskSupervisor()
    try:
        for name, work in parts.items():
            together.start_task(work, name)
        await together.wait_for_end()
    finally:
        await together.stop_tasks()


class RestartedTask:
    """One background task that is started again whenever it ends before `stop`, with a line in the log and a count."""

    def __init__(self, name: str, make_body: Callable[[], TaskBody], *, restart_seconds: float = RESTART_SECONDS) -> None:
        """`work` makes the coroutine of each start; `again`: seconds between an end and the next start."""
        self.name = name
        self.restarts = 0
        self._work = make_body
        self._again = restart_seconds
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        """Whether it runs at this moment."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Run it, unless it runs."""
        if not self.running and self._timer is None:
            self._begin()

    async def stop(self) -> None:
        """End it and wait for its end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _begin(self) -> None:
        self._timer = None
        self._task = asyncio.create_task(self._work(), name=self.name)
        self._task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        problem = None if task.cancelled() else task.exception()
        if task is not self._task:
            return  # it was stopped
        self.restarts += 1
        get_logger().error("task.restarts", task=self.name, cancelled=task.cancelled(), restarts=self.restarts, exc_info=problem)
        self._timer = asyncio.get_running_loop().call_later(self._again, self._begin)


def log_task_failure(task: asyncio.Task[Any]) -> None:
    """A done-callback for a task nobody waits for: what it raised is said in the log."""
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
