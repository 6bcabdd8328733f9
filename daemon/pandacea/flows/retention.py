"""Delete what a long-running node does not keep: everything that grows has an owner, a quota and an end (table in docs/operating.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pandacea.domain.job import Mode
from pandacea.domain.limits import Limits
from pandacea.files.results import ResultStore
from pandacea.flows.approve_code import KEEP_STRANGERS_SECONDS, KEEP_UNDECIDED_SECONDS
from pandacea.flows.outbox import KEEP_DELIVERED_SECONDS
from pandacea.flows.ports import Clock
from pandacea.flows.release import ReleasePorts, refuse_expired
from pandacea.flows.result_quota import Eviction
from pandacea.flows.unit_of_work import Database
from pandacea.flows.uploads import UploadStore

MIN_KEEP_SECONDS: Final = 3600.0
"""How long a result stays however little room is left, in seconds: new computations are refused first."""
KEEP_REHEARSALS_SECONDS: Final = 600.0
"""How long a rehearsal stays after its end, with its row, in seconds."""
MAX_UNCHARGED_ROWS: Final = 256
"""Rows of ended jobs that cost nothing, for each Spender; the oldest go first."""
KEEP_SCRIPTS_SECONDS: Final = 90 * 86_400.0
"""Default of `keep_scripts_seconds`."""


@dataclass(frozen=True, slots=True)
class RetentionPorts:
    """What retention works with."""

    database: Database
    clock: Clock
    results: ResultStore
    limits: Limits
    uploads: UploadStore
    release: ReleasePorts
    keep_results_seconds: float
    """How long results are kept after their end."""
    keep_scripts_seconds: float = KEEP_SCRIPTS_SECONDS
    """How long script and params of a run that was paid for are kept after its end."""


async def apply_retention(ports: RetentionPorts) -> int:
    """Delete what is due; manifests, receipts and charges of what was paid for stay. Returns how many results went."""
    now = ports.clock.now()
    await refuse_expired(ports.release)
    async with ports.database.read_session() as session:
        old = await session.jobs.list_ended_before(Mode.LIVE, now - ports.keep_results_seconds)
        rehearsed = await session.jobs.list_ended_before(Mode.MOCK, now - KEEP_REHEARSALS_SECONDS)
    for computation_id in old:
        await _clear_result(computation_id, ports)
    evicted = await _evict(ports)
    await ports.uploads.remove_expired()
    async with ports.database.unit_of_work() as work:
        gone = [*rehearsed, *await work.jobs.list_uncharged(now - ports.keep_results_seconds, MAX_UNCHARGED_ROWS)]
        await work.jobs.delete_jobs(gone)
        await work.jobs.clear_scripts(now - ports.keep_scripts_seconds)
        await work.outbox.prune_messages(now - KEEP_DELIVERED_SECONDS)
        await work.code.prune_submissions(now - KEEP_UNDECIDED_SECONDS, now - KEEP_STRANGERS_SECONDS)
        await work.commit()
    for computation_id in gone:
        await ports.results.remove_folder(computation_id)
    await ports.database.prune_nonces(int(now) - 600)
    return len(old) + evicted


async def _evict(ports: RetentionPorts) -> int:
    """Remove results until the largest new one fits; returns how many. Held ones stay: nobody has seen them yet.

    For a Spender's quota the Spender's own oldest go, for the quota of all the oldest of whoever holds most.
    """
    async with ports.database.read_session() as session:
        stored = await session.jobs.stored_bytes(Mode.LIVE)
        oldest = await session.jobs.list_oldest_results(Mode.LIVE, ports.clock.now() - MIN_KEEP_SECONDS)
    eviction = Eviction(stored, oldest, ports.limits.largest_result)
    gone = [*eviction.evict_own(ports.results.max_bytes_per_spender), *eviction.evict_largest(ports.results.max_bytes)]
    for computation_id in gone:
        await _clear_result(computation_id, ports)
    return len(gone)


async def _clear_result(computation_id: str, ports: RetentionPorts) -> None:
    # The row first: a crash in between leaves a folder that the next start removes.
    async with ports.database.unit_of_work() as work:
        await work.jobs.clear_result(computation_id, ports.clock.now())
        await work.commit()
    await ports.results.remove_folder(computation_id)
