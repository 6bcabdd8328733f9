"""Runs a follower over a busy chain while endpoints leave logs out, at any reading, and holds its leases against the contract."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pandacea.chain.rereading.parts import RereadOptions
from pandacea.domain.approval_proof import COUNTED_PROOFS
from pandacea.domain.ids import LeaseId
from pandacea.domain.lease import LeaseStatus
from tests.chain.anvil import EARNER, Anvil, AnvilAgreement
from tests.chain.node import FollowingNode, rebuilt_node
from tests.faults.proxy import FaultProxy
from tests.soak.traffic import Traffic, get_contract_lease, list_created_leases

SLOT: Final = 4
"""Blocks: `safe` is the head - 4, `finalized` the head - 8."""
DEEPEST: Final = 2 * SLOT - 2
TURN: Final = 3.0
"""Seconds from one `getLease` of a usable lease to the next; a node's own figure is 180."""
QUICK: Final = RereadOptions(
    range_interval=0.1,
    later_seconds=5.0,
    turn_seconds=TURN,
    wait_seconds=1.0,
    receipts_seconds=1.0,
    scan_step_seconds=0.5,
    first_pause=0.1,
    longest_pause=2.0,
)
"""A node's own intervals divided by 60 or less, so that minutes of trouble stand for hours."""
UNSAFE_SECONDS: Final = 2 * TURN + 9.0
"""How long a lease may be granted that the contract denies: two turns, for the other endpoint has every other one, and an outage of it."""
HEALED_SECONDS: Final = 60.0
"""How long after the last lie everything must be right."""


@dataclass
class LiesReport:
    """The result of one run; it has failed unless `differences` and `unsafe` are empty."""

    seed: int
    liars: int
    leases: int = 0
    logs_left_out: int = 0
    wrong_at_the_end_of_the_lies: int = 0
    healed_seconds: float = 0.0
    """From the last lie until every row agreed."""
    longest_unsafe_seconds: float = 0.0
    """Longest time for which one lease was granted that the contract denied."""
    repaired: int = 0
    transactions: int = 0
    reorgs: int = 0
    unsafe: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


class Liar:
    """Leaves a share of the logs out of any answer: some for as long as it lies, others of one answer and not of the next."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._hidden: dict[tuple[str, str], bool] = {}
        self.share = 0.0
        self.left_out = 0

    def __call__(self, method: str, _params: list[Any], result: Any) -> Any:
        """Filter a result, as `tests.faults.proxy.After`."""
        if not self.share or method != "eth_getLogs" or not isinstance(result, list):
            return result
        told = [log for log in result if not self._hides((log["blockHash"], log["logIndex"]))]
        self.left_out += len(result) - len(told)
        return told

    def be_honest(self) -> None:
        """Show everything from now on."""
        self.share = 0.0
        self._hidden.clear()

    def _hides(self, identity: tuple[str, str]) -> bool:
        always = self._hidden.setdefault(identity, self._dice.random() < self.share / 2)
        return always or self._dice.random() < self.share / 2


async def soak_with_lies(seed: int, seconds: float, liars: int, folder: Path, say: Callable[[str], None]) -> LiesReport:
    """Run one: `seconds` of trouble in which `liars` of the two endpoints lie in turn or together, then honesty."""
    report = LiesReport(seed, liars)
    folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(
            Anvil("--block-time", "1", "--slots-in-an-epoch", str(SLOT), "--prune-history", "5000")
        )
        agreement = await chain.deploy_agreement()
        proxies = [await stack.enter_async_context(FaultProxy(chain.url)) for _ in range(2)]
        dice = random.Random(f"{seed} lies")
        lying = [Liar(dice) for _ in proxies]
        for proxy, liar in zip(proxies, lying, strict=True):
            proxy.after.append(liar)
        node = FollowingNode(
            agreement,
            folder / "node.db",
            urls=[proxy.url for proxy in proxies],
            reread=QUICK,
            cross_check_interval=2.0,
            timeout=10.0,
            deploy_block=agreement.block,
        )
        await stack.enter_async_context(node)
        traffic = Traffic(agreement, random.Random(f"{seed} traffic"), DEEPEST)
        watch = UnsafeWatch(node, agreement, report)
        async with _running(traffic.run()), _running(traffic.fork()), _running(watch.run()):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await _episode(dice, proxies, lying, liars)
                say(f"{end - time.monotonic():4.0f} s left, {sum(liar.left_out for liar in lying)} logs left out")
        for liar in lying:
            liar.be_honest()
        report.logs_left_out = sum(liar.left_out for liar in lying)
        report.transactions, report.reorgs = sum(traffic.sent.values()), sum(traffic.reorgs.values())
        await _heal(node, agreement, report, folder)
    return report


async def _episode(dice: random.Random, proxies: Sequence[FaultProxy], lying: Sequence[Liar], liars: int) -> None:
    """Let one endpoint lie while the other is down or up, or both lie, for some seconds."""
    chosen = dice.sample(range(2), dice.randrange(1, liars + 1))
    for place in chosen:
        lying[place].share = dice.choice([0.5, 0.5, 0.9, 1.0])
    silent = [proxy for place, proxy in enumerate(proxies) if place not in chosen and dice.random() < 0.5]
    for proxy in silent:
        proxy.refuse = True
    try:
        await asyncio.sleep(dice.uniform(2.0, 8.0))
    finally:
        for proxy in silent:
            proxy.refuse = False
        for place in chosen:
            lying[place].be_honest()
    await asyncio.sleep(dice.uniform(0.0, 2.0))


class UnsafeWatch:
    """Notes each lease that the node would let somebody use although the contract denies it, and for how long."""

    def __init__(self, node: FollowingNode, agreement: AnvilAgreement, report: LiesReport) -> None:
        self._node, self._agreement, self._report = node, agreement, report
        self._since: dict[str, float] = {}

    async def run(self) -> None:
        """Look once every half second until cancelled."""
        while True:
            for lease_id in self._node.lease_cache.list_ids():
                await self._look_at(lease_id)
            await asyncio.sleep(0.5)

    async def _look_at(self, lease_id: LeaseId) -> None:
        contract = await get_contract_lease(self._agreement, lease_id)
        denied = contract is not None and contract.status in {LeaseStatus.CANCELLED, LeaseStatus.DISPUTED, LeaseStatus.REFUNDED}
        if not denied or not self._is_usable(lease_id):
            self._since.pop(lease_id, None)
            return
        lasted = time.monotonic() - self._since.setdefault(lease_id, time.monotonic())
        self._report.longest_unsafe_seconds = max(self._report.longest_unsafe_seconds, lasted)
        if lasted > UNSAFE_SECONDS:
            self._report.unsafe.append(f"{lease_id}: usable for {lasted:.1f} s although the contract denies it")
            self._since[lease_id] = time.monotonic() + 3600  # once is enough

    def _is_usable(self, lease_id: LeaseId) -> bool:
        lease = self._node.known_lease(lease_id)
        if lease is None or lease.contested or lease.in_dispute or lease.resolved_for_spender:
            return False
        is_ready = self._node.lease_cache.chain_status().is_ready
        return is_ready and lease.status is LeaseStatus.APPROVED and lease.proof_status in COUNTED_PROOFS


async def _heal(node: FollowingNode, agreement: AnvilAgreement, report: LiesReport, folder: Path) -> None:
    """Wait until every row is what the contract and a rebuild say."""
    began = time.monotonic()
    report.wrong_at_the_end_of_the_lies = len(await find_wrong_leases(node, agreement))
    while (wrong := await find_wrong_leases(node, agreement)) and time.monotonic() - began < HEALED_SECONDS:
        await asyncio.sleep(0.5)
    report.healed_seconds = time.monotonic() - began
    report.leases = len(await list_created_leases(agreement))
    assert node.follower.rereading is not None
    report.repaired = node.follower.rereading.rereader.repaired_leases
    report.differences = [*wrong]
    if not wrong:
        async with rebuilt_node(agreement, folder, deploy_block=agreement.block) as other:
            mine, theirs = await node.read_rows(), await other.read_rows()
        report.differences = [f"{one}: {mine.get(one)} is {theirs.get(one)}" for one in theirs if mine.get(one) != theirs[one]]


async def find_wrong_leases(node: FollowingNode, agreement: AnvilAgreement) -> list[str]:
    """Compare the rows of this Earner's leases with `getLease`, one sentence for each that differs."""
    await node.wait_for_head(60.0)
    rows, wrong = await node.read_rows(), []
    for lease_id in await list_created_leases(agreement):
        contract = await get_contract_lease(agreement, lease_id)
        if contract is None or contract.earner != EARNER.address.lower():
            continue
        record = rows.get(lease_id)
        have = None if record is None else (record.lease.status, len(record.committed), record.terms[0] is not None)
        if have != (contract.status, contract.committed, True):
            wrong.append(f"{lease_id}: the rows have {have}, the contract {(contract.status, contract.committed)}")
    return wrong


@asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    """Run work beside the block; its failure is raised at the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
