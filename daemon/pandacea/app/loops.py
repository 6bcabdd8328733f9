"""Tasks that live as long as the node."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from pandacea.tasks import TaskSupervisor


def supervise_task(background: TaskSupervisor, work: Any, name: str, stack: AsyncExitStack) -> asyncio.Task[Any]:
    """Run a coroutine for as long as the node lives; ended, and waited for, when the stack unwinds."""
    running = background.start_task(work, name)
    stack.push_async_callback(background.stop_tasks, running)
    return running
