"""Runs a real node for minutes over a chain that mines every second, with random leases, reorganisations, faults and kills."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chain.anvil import Anvil
from tests.faults.proxy import FaultProxy
from tests.soak.process import NodeProcess
from tests.soak.traffic import Traffic, list_created_leases
from tests.soak.trouble import FaultInjector
from tests.soak.verdict import find_differences, wait_until_caught_up

SLOT: Final = 8
"""Blocks: `safe` is the head - 8, `finalized` the head - 16."""
DEEPEST: Final = 2 * SLOT - 2
"""Depth of a reorganisation at most, in blocks: one may be mined meanwhile."""
SETTLING: Final = 2 * SLOT + 2 * 32
"""Blocks after which everything that happened was settled and checked."""
CALM: Final = 0.35
"""Last share of the time without kills, so that the node's memory can be watched."""
WARM: Final = 10.0
"""Seconds after a start from which the process's memory is watched."""
GROWTH_MB: Final = 48.0
"""Resident memory that one process may gain from then on, in MB."""
LONG: Final = 240.0
"""Seconds from which a soak is long enough for a silence of a minute."""


@dataclass
class SoakReport:
    """The result of a soak; it has failed unless `differences` is empty."""

    seed: int
    seconds: float = 0.0
    blocks: int = 0
    leases: int = 0
    transactions: dict[str, int] = field(default_factory=dict)
    reorgs: dict[int, int] = field(default_factory=dict)
    """Depth in blocks -> how often."""
    kills: int = 0
    starts: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    withheld_logs: int = 0
    recovery_median_seconds: float = 0.0
    recovery_worst_seconds: float = 0.0
    rss_first_mb: float = 0.0
    """Of the last process, soon after it was ready."""
    rss_last_mb: float = 0.0
    watched_seconds: float = 0.0
    """Between the two."""
    differences: list[str] = field(default_factory=list)


class MemoryWatch:
    """Watches the memory of one process at a time, anew after each start."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._start = 0
        self.first = self.last = self.seconds = 0.0
        """In MB, in MB, and the seconds between them."""

    def check_growth(self) -> None:
        """Assert that the process has not grown by more than GROWTH_MB."""
        age = time.monotonic() - self._node.started_at
        if age < WARM:
            return
        now = self._node.rss_mb()
        if self._start != self._node.starts:
            self._start, self._since, self.first = self._node.starts, age, now
        self.last, self.seconds = now, age - self._since
        assert now - self.first < GROWTH_MB, f"the node grew by {now - self.first:.0f} MB to {now:.0f} MB"


async def soak(seed: int, seconds: float, folder: Path, environment: Path, say: Callable[[str], None]) -> SoakReport:
    """Run one; `say` is given a line every few seconds. The node's log stays in `folder`.

    Raises:
        AssertionError: the node ended by itself, stayed unready, or grew without bound; differences are in the report.
    """
    report = SoakReport(seed)
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(Anvil("--block-time", "1", "--slots-in-an-epoch", str(SLOT)))
        agreement = await chain.deploy_agreement()
        proxies = (await stack.enter_async_context(FaultProxy(chain.url)), await stack.enter_async_context(FaultProxy(chain.url)))
        node = NodeProcess(folder, agreement, [proxy.url for proxy in proxies], proxies[0].ws_url, environment)
        stack.push_async_callback(node.close)
        # A stream of its own for each: what one draws does not depend on how quick another was.
        traffic = Traffic(agreement, random.Random(f"{seed} traffic"), DEEPEST)
        trouble = FaultInjector(chain, traffic, node, proxies, random.Random(f"{seed} trouble"))
        await node.start()
        await trouble.wait_until_recovered()
        telling = _telling(report, node, traffic, trouble, began, say)
        async with _running(traffic.run()), _running(traffic.fork()), _running(telling):
            await _stir(report, trouble, node, began, seconds)
        say("no more faults; the chain goes on until everything is final")
        await chain.mine_blocks(SETTLING)
        await wait_until_caught_up(node, agreement)
        await asyncio.sleep(5)  # the second pass takes a range each second
        await wait_until_caught_up(node, agreement)
        _note(report, traffic, trouble, node, time.monotonic() - began)
        report.blocks, report.leases = await chain.head_number(), len(await list_created_leases(agreement))
        report.differences = await find_differences(node, agreement, folder)
        await node.stop()
    return report


async def _stir(report: SoakReport, trouble: FaultInjector, node: NodeProcess, began: float, seconds: float) -> None:
    """Run episode after episode, towards the end without kills."""
    silenced = seconds < LONG
    memory = MemoryWatch(node)
    while (passed := time.monotonic() - began) < seconds:
        calm = passed > (1 - CALM) * seconds
        await trouble.run_episode(kills=not calm)
        if not silenced and passed > seconds / 2:
            silenced = True
            await trouble.run_long_silence()
        memory.check_growth()
        await asyncio.sleep(trouble.dice.uniform(0.0, 3.0))
    report.rss_first_mb, report.rss_last_mb, report.watched_seconds = memory.first, memory.last, memory.seconds


async def _telling(
    report: SoakReport,
    node: NodeProcess,
    traffic: Traffic,
    trouble: FaultInjector,
    began: float,
    say: Callable[[str], None],
) -> None:
    while True:
        await asyncio.sleep(10)
        said = await node.metrics()
        _note(report, traffic, trouble, node, time.monotonic() - began)
        lag = f"{said['chain_lag_blocks']:.0f}" if said else "?"
        head = f"{said['chain_head_block']:.0f}" if said else "?"
        leases = f"{said['leases']:.0f}" if said else "?"
        say(
            f"{report.seconds:4.0f} s  block {head}, lag {lag}, leases {leases}, transactions {sum(report.transactions.values())}, "
            f"reorgs {sum(report.reorgs.values())}, kills {report.kills}, faults {sum(report.faults.values())}, "
            f"worst recovery {report.recovery_worst_seconds:.1f} s"
        )


def _note(report: SoakReport, traffic: Traffic, trouble: FaultInjector, node: NodeProcess, seconds: float) -> None:
    report.seconds = seconds
    report.transactions = dict(sorted(traffic.sent.items()))
    report.reorgs = dict(sorted(traffic.reorgs.items()))
    report.kills, report.starts = trouble.kills, node.starts
    report.faults = dict(sorted(trouble.faults.items()))
    report.withheld_logs = trouble.withheld.logs
    report.recovery_median_seconds = statistics.median(trouble.recoveries)
    report.recovery_worst_seconds = max(trouble.recoveries)


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run work beside the block; its failure is raised at the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
