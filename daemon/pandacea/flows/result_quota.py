"""The quotas of results: whether another fits (on the disk, within all results', within its Spender's), and which are evicted for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pandacea.domain.ids import Address, ComputationId
from pandacea.domain.job import JobState, Mode
from pandacea.domain.limits import MIB, Limits
from pandacea.errors import Unavailable
from pandacea.files.results import ResultStore
from pandacea.flows.unit_of_work import ReadSession, StoredResult


class ResultsFull(Unavailable):
    """The Spender's own quota of results is full; nobody else's is."""

    code = "results-full"


class DiskFull(Unavailable):
    """The node has no room for another result; try again later."""

    code = "disk-full"


async def find_shortage(session: ReadSession, results: ResultStore, limits: Limits, mode: Mode) -> str | None:
    """Say why the largest result of one more run would not fit beside those of the runs under way; None when it would.

    It counts bytes and files on the disk and, for a leased run, bytes within `max_bytes`. Asked in the transaction that starts a run, so
    that two runs never find room for one: a run reserves the largest result there can be. What waits reserves nothing: it starts when
    there is room, and most results are small.
    """
    running = await session.jobs.count_running() if mode is Mode.LIVE else {}
    leased, all_runs = sum(running.values()) + 1, len(await session.jobs.list_in_state(JobState.RUNNING)) + 1
    return await _shortage(session, results, limits, mode, all_runs, leased)


async def _shortage(
    session: ReadSession, results: ResultStore, limits: Limits, mode: Mode, all_runs: int, leased_runs: int
) -> str | None:
    if (short := results.find_disk_shortage(limits, all_runs)) is not None:
        return short
    if mode is Mode.MOCK:
        return None  # rehearsals have a quota of their own, in which the oldest make room
    taken = sum((await session.jobs.stored_bytes(Mode.LIVE)).values()) + leased_runs * limits.largest_result
    if taken > results.max_bytes:
        return f"results may need {taken // MIB} MiB, and store.max_results_mb is {results.max_bytes // MIB}"
    return None


async def require_room(session: ReadSession, results: ResultStore, limits: Limits, spender: Address, mode: Mode) -> None:
    """Refuse early what could not start even if nothing else ran.

    Raises:
        ResultsFull: the Spender's own quota would not take the largest result.
        DiskFull: the node's would not.
    """
    mine = (await session.jobs.stored_bytes(Mode.LIVE)).get(spender, 0) if mode is Mode.LIVE else 0
    if mine + limits.largest_result > results.max_bytes_per_spender:
        raise ResultsFull(
            f"Your results take {mine:,} of the {results.max_bytes_per_spender:,} bytes that one Spender's may take here, and the "
            "largest of another would not fit. Your oldest go from an hour after they ended; those that the Earner holds stay until the "
            "Earner decides.",
            retry_after=300,
        )
    if await _shortage(session, results, limits, mode, 1, 1) is not None:
        raise DiskFull("The node has no room for another result now; nothing was accepted. Try again later.", retry_after=60)


async def list_full_spenders(session: ReadSession, results: ResultStore, limits: Limits) -> list[Address]:
    """Return the Spenders whose quota would not take another result beside those that their runs under way may leave."""
    stored, running = await session.jobs.stored_bytes(Mode.LIVE), await session.jobs.count_running()
    coming = {spender: stored.get(spender, 0) + running.get(spender, 0) * limits.largest_result for spender in stored | running}
    return [spender for spender, size in coming.items() if size + limits.largest_result > results.max_bytes_per_spender]


class Eviction:
    """Chooses results to evict from those of all Spenders; each that is yielded counts as gone from then on."""

    def __init__(self, stored: Mapping[Address, int], oldest: Sequence[StoredResult], needed: int) -> None:
        """Begin with what is stored. Sizes in bytes.

        Args:
            stored: what each Spender's stored results take, those among them that may not be evicted.
            oldest: what may be evicted, oldest first.
            needed: the result that there must be room for.
        """
        self._stored: Final = dict(stored)
        self._needed = needed
        self._newest_first: dict[Address, list[StoredResult]] = {}
        for result in reversed(oldest):
            self._newest_first.setdefault(result.spender, []).append(result)

    def evict_own(self, max_bytes: int) -> Iterator[ComputationId]:
        """Yield results until those of each Spender, with the needed one, take at most `max_bytes`."""
        for spender in list(self._newest_first):
            while self._stored.get(spender, 0) + self._needed > max_bytes and self._newest_first.get(spender):
                yield self._pop_oldest(spender)

    def evict_largest(self, max_bytes: int) -> Iterator[ComputationId]:
        """Yield results until all, with the needed one, take at most `max_bytes`: always the oldest of the Spender who holds most.

        So nobody who holds less than an equal share loses anything to somebody who holds more.
        """
        while sum(self._stored.values()) + self._needed > max_bytes and self._newest_first:
            yield self._pop_oldest(max(self._newest_first, key=lambda spender: self._stored.get(spender, 0)))

    def _pop_oldest(self, spender: Address) -> ComputationId:
        result = self._newest_first[spender].pop()
        if not self._newest_first[spender]:
            del self._newest_first[spender]
        self._stored[spender] -= result.size
        return result.computation_id
