"""Planning the next step: from the view the node holds to what an endpoint shows now. Network only; nothing is changed here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol, TypeVar

import structlog

from pandacea.chain.decode import CREATED, as_topic, decode
from pandacea.chain.faults import Fault, RpcFault
from pandacea.chain.logs import BloomCheck, LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.wire import Header, Log
from pandacea.domain.ids import Address, BlockNumber
from pandacea.domain.seen import NO_HASH, BlockRef, SeenEvent, Step, View

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_HELD: Final = 2_000
"""Unfinalized blocks held at most; without finality, what is deeper counts as settled."""

STRIDE: Final = 64
"""Blocks appended in one step."""

SETTLE_EVERY: Final = 32
"""Blocks by which finality must have advanced before rows are folded."""

_AT_ONCE: Final = 16


class FinalityViolatedError(Exception):
    """An endpoint shows another block where the node holds a final one."""


class Completer(Protocol):
    """Adds to events what an interface does not emit."""

    async def complete(self, endpoint: Endpoint, events: Sequence[SeenEvent]) -> list[SeenEvent]: ...


@dataclass(slots=True)
class Counters:
    """What the metrics show of following."""

    reorgs: int = 0
    deepest_reorg: int = 0
    odd_logs: int = 0
    """Logs of known topics that are no such event."""
    healed_logs: int = 0
    """Logs that a second look found."""
    lagging: int = 0
    """Heads behind what was processed already."""


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask up to three times for something that exists: behind a balancer, the next node asked may have it already."""
    for pause in (0.02, 0.1):
        try:
            return await ask()
        except RpcFault as fault:
            if fault.kind not in {Fault.NULL, Fault.ERROR}:
                raise
        await asyncio.sleep(pause)
    return await ask()


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
    _bloom: BloomCheck = field(init=False)
    _earner_topic: str = field(init=False)

    def __post_init__(self) -> None:
        self._bloom = BloomCheck(self.contract, self.reader.topics)
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
        if head.parent == tip.hash:
            # The usual case, one new block: its logs are asked for together with the tags, so that an answer changes at once.
            safe, final, logs = await asyncio.gather(
                self._tag(endpoint, "safe"), self._tag(endpoint, "finalized"), self._logs(endpoint, [newest])
            )
        else:
            safe, final, logs = *await asyncio.gather(self._tag(endpoint, "safe"), self._tag(endpoint, "finalized")), None
        if final is not None and (held := view.at(final.number)) is not None and held.hash != final.hash:
            return await self._reorganise(endpoint, view, head)
        marks = (safe.number if safe else -1, final.number if final else -1)
        floor = max(min(marks[1], head.number), head.number - self.max_held)
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
            header = await endpoint.maybe("eth_getBlockByNumber", [tag, False], Header)
        except RpcFault as fault:
            if fault.kind in {Fault.UNSUPPORTED, Fault.ERROR}:
                return None
            raise
        try:
            return None if header is None else header.ref()
        except ValueError as problem:
            raise endpoint.inconsistent("eth_getBlockByNumber", f"a {tag} header that is no header") from problem

    # -- far behind: settled ranges

    async def _gap(self, endpoint: Endpoint, view: View, head: BlockRef, floor: int, marks: tuple[int, int]) -> Step:
        tip = view.tip
        if not await self._still_there(endpoint, tip):
            return await self._reorganise(endpoint, view, head)
        if view.blocks:
            return await self._settle(endpoint, view, tip.number, upto=tip.number)
        last, logs = await patiently(lambda: self.reader.read(endpoint, tip.number + 1, floor))
        end = (await endpoint.header(last)).ref()
        if any(found.block_hash != end.hash for found in logs if found.number == last):
            raise endpoint.inconsistent("eth_getLogs", f"logs of another block {last} than its header's")
        events = await self.events(endpoint, logs)
        return Step(events=tuple(events), settle_to=end, safe=BlockNumber(marks[0]), finalized=BlockNumber(marks[1]))

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
        headers = await self._headers(endpoint, tip.number + 1, min(head.number, tip.number + STRIDE), head)
        first = headers[0].ref()
        if first.parent != tip.hash:
            if await self._still_there(endpoint, tip):
                raise endpoint.inconsistent("eth_getBlockByNumber", f"block {first.number} is no child of block {tip.number}")
            return await self._reorganise(endpoint, view, head)
        events = await self.events(endpoint, await self._logs(endpoint, headers))
        blocks = tuple(header.ref() for header in headers)
        return Step(blocks=blocks, events=tuple(events), safe=BlockNumber(marks[0]), finalized=BlockNumber(marks[1]))

    async def _headers(self, endpoint: Endpoint, first: int, last: int, head: BlockRef) -> list[Header]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int) -> Header:
            async with gate:
                return await patiently(lambda: endpoint.header(number))

        headers = await asyncio.gather(*(one(number) for number in range(first, last + 1)))
        for parent, child in pairwise(headers):
            if child.parent_hash != parent.hash:
                raise endpoint.inconsistent("eth_getBlockByNumber", f"block {child.number} is no child of the one before")
        if last == head.number and headers[-1].hash != head.hash:
            raise endpoint.inconsistent("eth_getBlockByNumber", f"two blocks at {last}")
        return list(headers)

    async def _logs(self, endpoint: Endpoint, headers: Sequence[Header]) -> list[Log]:
        """Logs of consecutive blocks, held against the headers: right hashes, none a bloom rules out, none it hints at missing."""
        by_number = {int(header.number, 16): header for header in headers}
        first, last = min(by_number), max(by_number)
        logs: list[Log] = []
        if len(headers) <= 3:
            found = await asyncio.gather(*(self._at(endpoint, header.hash, number) for number, header in by_number.items()))
            logs = [one for block in found for one in block]
        else:
            at = first
            while at <= last:
                end, more = await self.reader.read(endpoint, at, last)
                logs.extend(more)
                at = end + 1
        present = set()
        for one in logs:
            present.add(one.number)
            if one.block_hash != by_number[one.number].hash:
                raise endpoint.inconsistent("eth_getLogs", f"logs of another block {one.number} than its header's")
        for number, header in by_number.items():
            may = self._bloom.may_contain(header.logs_bloom)
            if number in present and may is False:
                raise endpoint.inconsistent("eth_getLogs", f"logs in block {number} that its bloom filter rules out")
            if number not in present and may:
                logs.extend(await self._again(endpoint, header, number))
                logs.sort(key=lambda one: (one.number, one.index))
        return logs

    async def _at(self, endpoint: Endpoint, block_hash: str, number: int) -> list[Log]:
        return await patiently(lambda: self.reader.at(endpoint, block_hash, number))

    async def _again(self, endpoint: Endpoint, header: Header, number: int) -> list[Log]:
        """The bloom filter says there may be logs and none came: ask once more, elsewhere if possible, by the block's hash."""
        other = self.second(endpoint)
        try:
            found = await self.reader.at(other, header.hash, number)
        except RpcFault:
            if other is endpoint:
                raise
            found = await self.reader.at(endpoint, header.hash, number)
        if found:
            self.counters.healed_logs += len(found)
            log.warning("chain.logs-were-missing", endpoint=endpoint.name, block=number, found=len(found))
        return found

    # -- reorgs

    async def _reorganise(self, endpoint: Endpoint, view: View, head: BlockRef) -> Step:
        """Undo to the common ancestor and append the other branch, in one step: nobody sees the gap between them."""
        ancestor = await self._ancestor(endpoint, view, min(head.number, view.tip.number))
        if ancestor.number < view.finalized:
            raise FinalityViolatedError(
                f"{endpoint.name} shows another chain after block {ancestor.number}, but block {view.finalized} was final."
            )
        last = min(head.number, max(view.tip.number, ancestor.number + STRIDE))
        headers = await self._headers(endpoint, ancestor.number + 1, last, head)
        if headers and headers[0].parent_hash != ancestor.hash:
            raise endpoint.inconsistent("eth_getBlockByNumber", f"block {ancestor.number + 1} has no parent that is shown")
        events = await self.events(endpoint, await self._logs(endpoint, headers)) if headers else []
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
            RpcFault: v0's completion needed the endpoint, and it failed.
        """
        events = []
        topic, new = self._earner_topic, tuple.__new__  # a NamedTuple's own constructor takes twice as long
        for one in logs:
            topics = one.topics
            if topics[0] == CREATED and len(topics) == 4 and topics[3] != topic:
                continue  # another Earner's: dropped before anything is decoded
            event = decode(topics, one.data)
            if event is None:
                self.counters.odd_logs += 1
                continue
            events.append(new(SeenEvent, (one.number, one.block_hash, one.index, one.transaction_hash, event, 0)))
        return events if self.completer is None else await self.completer.complete(endpoint, events)
