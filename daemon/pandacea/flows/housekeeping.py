"""What a long-running node throws away: everything that grows has an owner, a room and an end (docs/operating.md has the table)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pandacea.domain.job import Mode
from pandacea.domain.limits import Limits
from pandacea.flows.approve import KEEP_STRANGERS, KEEP_UNDECIDED
from pandacea.flows.books import Books
from pandacea.flows.crowd import Crowd
from pandacea.flows.ports import Clock
from pandacea.flows.release import ReleasePorts, refuse_forgotten
from pandacea.flows.shelf import Shelf
from pandacea.flows.uploads import Uploads

KEEP_DELIVERED: Final = 86_400.0
"""Seconds a delivered message stays for inspection."""
KEEP_WAITING: Final = 7 * 86_400.0
"""Seconds an MQTT message waits for a broker that is down: older news is none. Commitments wait for ever."""
KEEP_AT_LEAST: Final = 3600.0
"""Seconds a result stays, however little room is left: new computations are refused first."""


KEEP_REHEARSALS: Final = 600.0
"""Seconds a rehearsal stays after its end, with its row."""
KEEP_UNCHARGED: Final = 256
"""Rows of ended jobs that cost nothing, of each Spender; the oldest go first."""
KEEP_SCRIPTS: Final = 90 * 86_400.0
"""Default of `keep_scripts_seconds`."""


@dataclass(frozen=True, slots=True)
class SweepPorts:
    """What housekeeping works with. `keep_seconds`: how long results are kept."""

    books: Books
    clock: Clock
    shelf: Shelf
    limits: Limits
    uploads: Uploads
    release: ReleasePorts
    keep_seconds: float
    keep_scripts_seconds: float = KEEP_SCRIPTS
    """How long script and params of a run that was paid for are kept after its end."""


async def sweep(ports: SweepPorts) -> int:
    """Throw away what is due; manifests, receipts and charges of what was paid for stay. Returns how many results went."""
    now = ports.clock.now()
    await refuse_forgotten(ports.release)
    async with ports.books.read() as view:
        old = await view.jobs.ended_before(Mode.LIVE, now - ports.keep_seconds)
        rehearsed = await view.jobs.ended_before(Mode.MOCK, now - KEEP_REHEARSALS)
    for computation_id in old:
        await _forget(computation_id, ports)
    crowded = await _crowd_out(ports)
    await ports.uploads.sweep()
    async with ports.books.write() as work:
        gone = [*rehearsed, *await work.jobs.uncharged(now - ports.keep_seconds, KEEP_UNCHARGED)]
        await work.jobs.delete(gone)
        await work.jobs.forget_scripts(now - ports.keep_scripts_seconds)
        await work.outbox.prune(now - KEEP_DELIVERED, now - KEEP_WAITING)
        await work.code.prune(now - KEEP_UNDECIDED, now - KEEP_STRANGERS)
        await work.commit()
    for computation_id in gone:
        await ports.shelf.remove(computation_id)
    await ports.books.prune_nonces(int(now) - 600)
    return len(old) + crowded


async def _crowd_out(ports: SweepPorts) -> int:
    """Remove results until the largest new one fits; held ones stay: nobody has seen them yet.

    For a Spender's room the Spender's own oldest go, for everybody's the oldest of whoever holds most.
    """
    async with ports.books.read() as view:
        sizes = await view.jobs.stored(Mode.LIVE)
        oldest = await view.jobs.oldest_results(Mode.LIVE, ports.clock.now() - KEEP_AT_LEAST)
    room = Crowd(sizes, oldest, ports.limits.largest_result)
    gone = [*room.own(ports.shelf.per_spender), *room.everybodys(ports.shelf.most)]
    for computation_id in gone:
        await _forget(computation_id, ports)
    return len(gone)


async def _forget(computation_id: str, ports: SweepPorts) -> None:
    # The row first: a crash in between leaves a folder that the next start removes.
    async with ports.books.write() as work:
        await work.jobs.forget_result(computation_id, ports.clock.now())
        await work.commit()
    await ports.shelf.remove(computation_id)
