"""Planning the next step: from the view the node holds to what an endpoint shows now. Network only; nothing is changed here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import structlog

from pandacea.chain.blocks import BlockReader, Counters, patiently
from pandacea.chain.decode import as_topic, decode_all
from pandacea.chain.faults import Fault, RpcFault
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.wire import Log
from pandacea.domain.ids import Address, BlockNumber
from pandacea.domain.seen import NO_HASH, BlockRef, SeenEvent, Step, View

log = structlog.get_logger(__name__)

MAX_HELD: Final = 2_000
"""Unfinalized blocks held at most; without finality, what is deeper counts as settled."""

STRIDE: Final = 64
"""Blocks appended in one step."""

LOGS_A_STEP: Final = 18_000
RANGES_A_STEP: Final = 8
"""Of a gap, what one commit takes: a commit costs about as much for twice the rows, and a crash loses no more than this."""

SETTLE_EVERY: Final = 32
"""Blocks by which finality must have advanced before rows are folded."""


class FinalityViolatedError(Exception):
    """An endpoint shows another block where the node holds a final one."""


class Completer(Protocol):
    """Adds to events what an interface does not emit."""

    async def complete(self, endpoint: Endpoint, events: Sequence[SeenEvent]) -> list[SeenEvent]: ...


@dataclass(slots=True)
class ChainSource:
    """Plans steps for one contract and one Earner."""

    contract: Address
    earner: Address
    reader: LogReader
    completer: Completer | None
    second: Callable[[Endpoint], Endpoint]
    """Another endpoint to ask again, or the same when there is none."""
    settle_every: int = SETTLE_EVERY
    max_held: int = MAX_HELD
    counters: Counters = field(default_factory=Counters)
    heard: Callable[[int], None] = lambda _head: None
    _blocks: BlockReader = field(init=False)
    _earner_topic: str = field(init=False)

    def __post_init__(self) -> None:
        self._blocks = BlockReader(self.reader, self.second, self.counters)
        self._earner_topic = as_topic(self.earner)

    async def next(self, endpoint: Endpoint, view: View) -> Step | None:
        """The next step, or None when the endpoint shows nothing new.

        Raises:
            RpcFault: the endpoint failed or contradicted itself; nothing was decided.
            FinalityViolatedError: it shows another chain below what was final.
        """
        newest = await endpoint.header("latest")
        head = newest.ref()
        endpoint.head = head.number
        self.heard(head.number)
        tip = view.tip
        if head.number <= tip.number:
            return await self._not_ahead(endpoint, view, head)
        if not view.blocks and tip.number < view.finalized:
            # In the middle of a gap: up to what was final when it was last asked, there is nothing to ask again.
            return await self._gap(endpoint, view, head, min(view.finalized, head.number), (view.safe, view.finalized))
        if head.parent == tip.hash:
            # The usual case, one new block: its logs are asked for together with the tags, so that an answer changes at once.
            safe, final, logs = await asyncio.gather(
                self._tag(endpoint, "safe"), self._tag(endpoint, "finalized"), self._blocks.logs(endpoint, [newest])
            )
        else:
            safe, final, logs = *await asyncio.gather(self._tag(endpoint, "safe"), self._tag(endpoint, "finalized")), None
        if final is not None and (held := view.at(final.number)) is not None and held.hash != final.hash:
            return await self._reorganise(endpoint, view, head)
        # Never beyond the head: a mark is kept for good, and one far ahead would make every later block final at once.
        marks = (min(safe.number, head.number) if safe else -1, min(final.number, head.number) if final else -1)
        floor = max(marks[1], head.number - self.max_held)
        if tip.number < floor:
            return await self._gap(endpoint, view, head, floor, marks)
        if min(view.finalized, tip.number) - view.base.number >= self.settle_every or len(view.blocks) >= self.max_held:
            return await self._settle(endpoint, view, tip.number - self.max_held // 2)
        if logs is not None:
            events = tuple(await self.events(endpoint, logs))
            return Step(blocks=(head,), events=events, safe=BlockNumber(marks[0]), finalized=BlockNumber(marks[1]))
        return await self._advance(endpoint, view, head, marks)

    async def start_block(self, endpoint: Endpoint, deploy_block: int) -> BlockRef:
        """The block before a deployment: where a view begins."""
        if deploy_block <= 0:
            return BlockRef(BlockNumber(-1), NO_HASH, NO_HASH, 0)  # type: ignore[arg-type]
        return (await endpoint.header(deploy_block - 1)).ref()

    # -- not ahead of us

    async def _not_ahead(self, endpoint: Endpoint, view: View, head: BlockRef) -> Step | None:
        held = view.at(head.number)
        if held is not None and held.hash != head.hash:
            return await self._reorganise(endpoint, view, head)
        if head.number < view.tip.number:
            # Behind a balancer, or gone back without a word: either way nothing new, until a block differs by its hash.
            self.counters.lagging += 1
        return None

    async def _tag(self, endpoint: Endpoint, tag: str) -> BlockRef | None:
        try:
            header = await endpoint.maybe_header(tag)
        except RpcFault as fault:
            if fault.kind in {Fault.UNSUPPORTED, Fault.ERROR}:
                return None
            raise
        return None if header is None else header.ref()

    # -- far behind: settled ranges

    async def _gap(self, endpoint: Endpoint, view: View, head: BlockRef, floor: int, marks: tuple[int, int]) -> Step:
        tip = view.tip
        if not await self._still_there(endpoint, tip):
            return await self._reorganise(endpoint, view, head)
        if view.blocks:
            return await self._settle(endpoint, view, tip.number, upto=tip.number)
        last, logs = await self._ranges(endpoint, tip.number + 1, floor)
        end = (await endpoint.header(last)).ref()
        if any(found.block_hash != end.hash for found in logs if found.number == last):
            raise endpoint.inconsistent("eth_getLogs", f"logs of another block {last} than its header's")
        events = await self.events(endpoint, logs)
        return Step(events=tuple(events), settle_to=end, safe=BlockNumber(marks[0]), finalized=BlockNumber(marks[1]))

    async def _ranges(self, endpoint: Endpoint, first: int, floor: int) -> tuple[int, list[Log]]:
        """Logs of several ranges, for one commit; with the last block they reach to."""
        last, logs = first - 1, list[Log]()
        for _ in range(RANGES_A_STEP):
            try:
                last, more = await patiently(partial(self.reader.read, endpoint, last + 1, floor))
            except RpcFault:
                if last < first:
                    raise
                break  # what came before is worth a step, and the next one meets the fault again
            logs.extend(more)
            if last >= floor or len(logs) >= LOGS_A_STEP:
                break
        return last, logs

    async def _still_there(self, endpoint: Endpoint, block: BlockRef) -> bool:
        if block.number < 0:
            return True
        return (await patiently(lambda: endpoint.header(block.number))).hash == block.hash

    # -- settling what became final

    async def _settle(self, endpoint: Endpoint, view: View, floor: int, *, upto: int | None = None) -> Step:
        """Fold what is final, after asking for its logs a second time: what a first answer dropped is found here."""
        last = upto if upto is not None else max(min(view.finalized, view.tip.number), floor)
        last = min(last, view.base.number + 256)
        other = self.second(endpoint)
        try:
            end, logs = await patiently(lambda: self.reader.read(other, view.base.number + 1, last))
        except RpcFault:
            if other is endpoint:
                raise
            end, logs = await self.reader.read(endpoint, view.base.number + 1, last)
        ref = view.at(end)
        assert ref is not None
        ours = [found for found in logs if (held := view.at(found.number)) and held.hash == found.block_hash]
        return Step(events=tuple(await self.events(endpoint, ours)), settle_to=ref)

    # -- at the tip

    async def _advance(self, endpoint: Endpoint, view: View, head: BlockRef, marks: tuple[int, int]) -> Step:
        tip = view.tip
        headers = await self._blocks.headers(endpoint, tip.number + 1, min(head.number, tip.number + STRIDE), head)
        first = headers[0].ref()
        if first.parent != tip.hash:
            if await self._still_there(endpoint, tip):
                raise endpoint.inconsistent("eth_getBlockByNumber", f"block {first.number} is no child of block {tip.number}")
            return await self._reorganise(endpoint, view, head)
        events = await self.events(endpoint, await self._blocks.logs(endpoint, headers))
        blocks = tuple(header.ref() for header in headers)
        return Step(blocks=blocks, events=tuple(events), safe=BlockNumber(marks[0]), finalized=BlockNumber(marks[1]))

    # -- reorgs

    async def _reorganise(self, endpoint: Endpoint, view: View, head: BlockRef) -> Step:
        """Undo to the common ancestor and append the other branch, in one step: nobody sees the gap between them."""
        ancestor = await self._ancestor(endpoint, view, min(head.number, view.tip.number))
        if ancestor.number < view.finalized:
            raise FinalityViolatedError(
                f"{endpoint.name} shows another chain after block {ancestor.number}, but block {view.finalized} was final."
            )
        last = min(head.number, max(view.tip.number, ancestor.number + STRIDE))
        headers = await self._blocks.headers(endpoint, ancestor.number + 1, last, head)
        if headers and headers[0].parent_hash != ancestor.hash:
            raise endpoint.inconsistent("eth_getBlockByNumber", f"block {ancestor.number + 1} has no parent that is shown")
        events = await self.events(endpoint, await self._blocks.logs(endpoint, headers)) if headers else []
        depth = view.tip.number - ancestor.number
        self.counters.reorgs += 1
        self.counters.deepest_reorg = max(self.counters.deepest_reorg, depth)
        log.warning("chain.reorg", endpoint=endpoint.name, depth=depth, ancestor=ancestor.number, head=head.number)
        return Step(undo_to=ancestor, blocks=tuple(header.ref() for header in headers), events=tuple(events))

    async def _ancestor(self, endpoint: Endpoint, view: View, top: int) -> BlockRef:
        """The highest block held that the endpoint shows too, by doubling and halving: 2 log k questions for k blocks."""

        async def same(number: int) -> bool:
            held = view.at(number)
            assert held is not None
            return await self._still_there(endpoint, held)

        base = view.base.number
        bad, distance = top + 1, 1
        good = top
        while not (good >= base and await same(good)):
            if good <= base:
                raise FinalityViolatedError(
                    f"{endpoint.name} shows another block {base} than {view.base.hash}, which was settled. If the chain was reset "
                    "on purpose, rebuild from it; otherwise remove that endpoint."
                )
            bad, good = good, max(base, good - distance)
            distance *= 2
        while bad - good > 1:
            middle = (good + bad) // 2
            if await same(middle):
                good = middle
            else:
                bad = middle
        found = view.at(good)
        assert found is not None
        return found

    # -- events

    async def events(self, endpoint: Endpoint, logs: Sequence[Log]) -> list[SeenEvent]:
        """The events of checked logs, in order, without other Earners' creations; completed for v0.

        Raises:
            RpcFault: a log is none that a contract can write; or v0's completion needed the endpoint, and it failed.
        """
        try:
            events, odd = decode_all(logs, self._earner_topic)
        except ValueError as problem:
            raise endpoint.inconsistent("eth_getLogs", f"a log that no contract writes: {problem}") from problem
        self.counters.odd_logs += odd
        return events if self.completer is None else await self.completer.complete(endpoint, events)
