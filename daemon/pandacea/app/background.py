"""Start the background tasks of a node."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from pandacea.tasks import TaskBody, TaskSupervisor


def supervise_task(supervisor: TaskSupervisor, work: TaskBody, name: str, stack: AsyncExitStack) -> asyncio.Task[Any]:
    """Start a background task that is cancelled, and waited for, when `stack` unwinds."""
    running = supervisor.start_task(work, name)
    stack.push_async_callback(supervisor.stop_tasks, running)
    return running
