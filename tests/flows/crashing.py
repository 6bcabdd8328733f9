"""A database that dies: at the n-th step (a read, a write, before a commit, after a commit) the node is as if killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pandacea.flows.unit_of_work import Database, ReadSession, UnitOfWork


class Killed(BaseException):
    """The node is gone: nothing catches this, and nothing it cleans up reaches the database."""


class CrashingDatabase:
    """`flows.unit_of_work.Database` with a fuse of so many steps; None: it never dies."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.fuse: int | None = None
        self.dead = asyncio.Event()

    def burn(self) -> None:
        """Burn one step of the fuse; raise once it is gone."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.dead.set()
        if self.dead.is_set():
            raise Killed

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[ReadSession]:
        self.burn()
        async with self._database.read_session() as session:
            yield session

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[UnitOfWork]:
        self.burn()
        async with self._database.unit_of_work() as work:
            yield _CrashingUnitOfWork(work, self)

    async def prune_nonces(self, before: int) -> None:
        self.burn()
        await self._database.prune_nonces(before)


class _CrashingUnitOfWork:
    def __init__(self, work: UnitOfWork, database: CrashingDatabase) -> None:
        self._work, self._crashing = work, database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def after_commit(self, callback: Callable[[], None]) -> None:
        self._work.after_commit(callback)

    async def commit(self) -> None:
        self._crashing.burn()
        await self._work.commit()
        self._crashing.burn()
