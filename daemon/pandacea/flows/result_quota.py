"""Whether another result fits: on the disk, within what all results may take, and within what one Spender's may."""

from __future__ import annotations

from pandacea.domain.ids import Address
from pandacea.domain.job import JobState, Mode
from pandacea.domain.limits import MIB, Limits
from pandacea.errors import Unavailable
from pandacea.files.results import ResultStore
from pandacea.flows.unit_of_work import ReadSession


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
