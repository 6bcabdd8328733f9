"""What a long-running node throws away: old results, uploads nobody wants, undecided scripts, delivered messages, spent nonces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pandacea.domain.limits import Limits
from pandacea.flows.approve import KEEP_UNDECIDED
from pandacea.flows.books import Books
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


async def sweep(ports: SweepPorts) -> int:
    """Throw away what is due; rows, manifests and charges stay. Returns how many results went."""
    now = ports.clock.now()
    await refuse_forgotten(ports.release)
    async with ports.books.read() as view:
        old = list(await view.jobs.ended_before(now - ports.keep_seconds))
    for computation_id in old:
        await _forget(computation_id, ports)
    crowded = await _crowd_out(ports)
    await ports.uploads.sweep()
    async with ports.books.write() as work:
        await work.outbox.prune(now - KEEP_DELIVERED, now - KEEP_WAITING)
        await work.code.prune(now - KEEP_UNDECIDED)
        await work.commit()
    await ports.books.prune_nonces(int(now) - 600)
    return len(old) + crowded


async def _crowd_out(ports: SweepPorts) -> int:
    """Remove the oldest results until the largest new one fits. Held ones stay: nobody has seen them yet."""
    largest = ports.limits.artifacts_bytes + ports.limits.output_bytes
    async with ports.books.read() as view:
        too_much = await view.jobs.stored() + largest - ports.shelf.most
        oldest = await view.jobs.oldest_results(ports.clock.now() - KEEP_AT_LEAST) if too_much > 0 else []
    gone = 0
    for computation_id, size in oldest:
        if too_much <= 0:
            break
        await _forget(computation_id, ports)
        too_much -= size
        gone += 1
    return gone


async def _forget(computation_id: str, ports: SweepPorts) -> None:
    # The row first: a crash in between leaves a folder that the next start removes.
    async with ports.books.write() as work:
        await work.jobs.forget_result(computation_id, ports.clock.now())
        await work.commit()
    await ports.shelf.remove(computation_id)
