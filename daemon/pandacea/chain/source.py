"""Plans the next update of the chain view from what an endpoint shows. Network only: it changes no state of the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import structlog

from pandacea.chain.blocks import BlockReader, FollowCounters, UnexplainedBlocks, retry_missing
from pandacea.chain.contract_versions import V0EventCompleter
from pandacea.chain.events import address_topic, decode_logs
from pandacea.chain.finality import FinalityViolatedError, describe_other_block, describe_reset, is_reset
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import RpcLog
from pandacea.domain.chain_view import BEFORE_GENESIS, NO_HASH, BlockRef, ChainEvent, ChainUpdate, ChainView
from pandacea.domain.ids import Address, BlockNumber, Timestamp

log = structlog.get_logger(__name__)

MAX_UNFINALIZED_BLOCKS: Final = 2_000
"""Unfinalized blocks held at most; on a chain without finality, deeper blocks are settled."""

BLOCKS_PER_STEP: Final = 64
"""Blocks appended by one update."""

LOGS_PER_STEP: Final = 18_000
RANGES_PER_STEP: Final = 8
"""Bounds of one commit of a backfill: larger ones would cost little less per log, and a crash loses at most one."""

SETTLE_EVERY_BLOCKS: Final = 32
"""Blocks by which finality must have advanced before events are settled into rows."""


class _Marks(NamedTuple):
    """The safe and the finalized block by number; -1: the chain has none."""

    safe: BlockNumber
    finalized: BlockNumber


@dataclass(slots=True)
class ChainSource:
    """Plans updates for one contract and one Earner."""

    contract: Address
    earner: Address
    reader: LogReader
    v0_completer: V0EventCompleter | None
    """Adds what a v0 contract does not emit; None for v1."""
    pick_second: Callable[[Endpoint], Endpoint]
    """Returns another endpoint to ask again, or the same when there is none."""
    settle_every: int = SETTLE_EVERY_BLOCKS
    max_unfinalized: int = MAX_UNFINALIZED_BLOCKS
    counters: FollowCounters = field(default_factory=FollowCounters)
    on_head: Callable[[BlockRef], None] = lambda _head: None
    """Called with every head seen."""
    _blocks: BlockReader = field(init=False)
    _earner_topic: str = field(init=False)

    def __post_init__(self) -> None:
        self._blocks = BlockReader(self.reader, self.pick_second, self.counters)
        self._earner_topic = address_topic(self.earner)

    async def plan_update(self, endpoint: Endpoint, view: ChainView) -> ChainUpdate | None:
        """Plan the next update; None when the endpoint shows nothing new.

        Raises:
            RpcFault: the endpoint failed or contradicted itself; nothing was decided.
            FinalityViolatedError: the endpoint shows another chain below the finalized block.
        """
        newest = await endpoint.get_header("latest")
        head = newest.to_block_ref()
        endpoint.head = head.number
        self.on_head(head)
        tip = view.tip
        if head.number <= tip.number:
            return await self._not_ahead(endpoint, view, head)
        if not view.blocks and tip.number < view.finalized:
            # In the middle of a backfill: the tags need not be asked again before the last known finalized block.
            return await self._gap(endpoint, view, head, min(view.finalized, head.number), _Marks(view.safe, view.finalized))
        if head.parent == tip.hash:
            # The usual case, one new block: its logs are asked for together with the tags, so that answers change without delay.
            safe, final, logs = await asyncio.gather(
                _find_tag(endpoint, "safe"), _find_tag(endpoint, "finalized"), self._blocks.read_logs(endpoint, [newest])
            )
        else:
            safe, final, logs = *await asyncio.gather(_find_tag(endpoint, "safe"), _find_tag(endpoint, "finalized")), None
        if final is not None and (held := view.block_at(final.number)) is not None and held.hash != final.hash:
            return await self._reorganise(endpoint, view, head)
        # Never beyond the head: marks are kept, and one far ahead would make every later block final at once.
        marks = _Marks(
            BlockNumber(min(safe.number, head.number) if safe else -1), BlockNumber(min(final.number, head.number) if final else -1)
        )
        floor = max(marks.finalized, head.number - self.max_unfinalized)
        if tip.number < floor:
            return await self._gap(endpoint, view, head, floor, marks)
        if min(view.finalized, tip.number) - view.base.number >= self.settle_every or len(view.blocks) >= self.max_unfinalized:
            return await self._settle(endpoint, view, tip.number - self.max_unfinalized // 2)
        if logs is not None:
            events = tuple(await self.decode_events(endpoint, logs))
            return ChainUpdate(blocks=(head,), events=events, safe=marks.safe, finalized=marks.finalized)
        return await self._advance(endpoint, view, head, marks)

    @property
    def unexplained(self) -> UnexplainedBlocks:
        """The blocks near the head whose bloom filter announces more than came."""
        return self._blocks.unexplained

    async def get_start_block(self, endpoint: Endpoint, deploy_block: int) -> BlockRef:
        """Get the block before the deployment, where a view begins."""
        if deploy_block <= 0:
            return BlockRef(BEFORE_GENESIS, NO_HASH, NO_HASH, Timestamp(0))
        return (await endpoint.get_header(deploy_block - 1)).to_block_ref()

    # -- a head that is not ahead

    async def _not_ahead(self, endpoint: Endpoint, view: ChainView, head: BlockRef) -> ChainUpdate | None:
        if is_reset(head, view.base):
            raise FinalityViolatedError(describe_reset(endpoint, head, view.base))
        held = view.block_at(head.number)
        if held is not None and held.hash != head.hash:
            return await self._reorganise(endpoint, view, head)
        if head.number < view.tip.number:
            # A lagging node behind a load balancer, or a chain that went back: nothing new until a block's hash differs.
            self.counters.lagging_heads += 1
        return None

    # -- backfill: far behind, settled ranges

    async def _gap(self, endpoint: Endpoint, view: ChainView, head: BlockRef, floor: int, marks: _Marks) -> ChainUpdate:
        tip = view.tip
        if not await self._still_there(endpoint, tip):
            return await self._reorganise(endpoint, view, head)
        if view.blocks:
            return await self._settle(endpoint, view, tip.number, upto=tip.number)
        last, logs = await self._ranges(endpoint, tip.number + 1, floor)
        end = (await endpoint.get_header(last)).to_block_ref()
        if any(found.block_hash != end.hash for found in logs if found.number == last):
            raise endpoint.inconsistent_fault("eth_getLogs", f"logs of a block {last} other than its header's")
        events = await self.decode_events(endpoint, logs)
        return ChainUpdate(events=tuple(events), settle_to=end, safe=marks.safe, finalized=marks.finalized)

    async def _ranges(self, endpoint: Endpoint, first: int, floor: int) -> tuple[int, list[RpcLog]]:
        """Read the logs of several ranges for one commit; return the last block read and the logs."""
        last, logs = first - 1, list[RpcLog]()
        for _ in range(RANGES_PER_STEP):
            try:
                last, more = await retry_missing(partial(self.reader.read_range, endpoint, last + 1, floor))
            except RpcFault:
                if last < first:
                    raise
                break  # the ranges before are worth an update; the next one meets the fault again
            logs.extend(more)
            if last >= floor or len(logs) >= LOGS_PER_STEP:
                break
        return last, logs

    async def _still_there(self, endpoint: Endpoint, block: BlockRef) -> bool:
        if block.number < 0:
            return True
        return (await retry_missing(lambda: endpoint.get_header(block.number))).hash == block.hash

    # -- settling what became final

    async def _settle(self, endpoint: Endpoint, view: ChainView, floor: int, *, upto: int | None = None) -> ChainUpdate:
        """Settle final blocks after asking for their logs a second time, which finds logs that the first answer left out."""
        last = upto if upto is not None else max(min(view.finalized, view.tip.number), floor)
        last = min(last, view.base.number + 256)
        other = self.pick_second(endpoint)
        try:
            end, logs = await retry_missing(lambda: self.reader.read_range(other, view.base.number + 1, last))
        except RpcFault:
            if other is endpoint:
                raise
            end, logs = await self.reader.read_range(endpoint, view.base.number + 1, last)
        ref = view.block_at(end)
        assert ref is not None
        ours = [found for found in logs if (held := view.block_at(found.number)) and held.hash == found.block_hash]
        return ChainUpdate(events=tuple(await self.decode_events(endpoint, ours)), settle_to=ref)

    # -- at the tip

    async def _advance(self, endpoint: Endpoint, view: ChainView, head: BlockRef, marks: _Marks) -> ChainUpdate:
        tip = view.tip
        headers = await self._blocks.read_headers(endpoint, tip.number + 1, min(head.number, tip.number + BLOCKS_PER_STEP), head)
        first = headers[0].to_block_ref()
        if first.parent != tip.hash:
            if await self._still_there(endpoint, tip):
                raise endpoint.inconsistent_fault(
                    "eth_getBlockByNumber", f"block {first.number} is not a child of block {tip.number}"
                )
            return await self._reorganise(endpoint, view, head)
        events = await self.decode_events(endpoint, await self._blocks.read_logs(endpoint, headers))
        blocks = tuple(header.to_block_ref() for header in headers)
        return ChainUpdate(blocks=blocks, events=tuple(events), safe=marks.safe, finalized=marks.finalized)

    # -- reorgs

    async def _reorganise(self, endpoint: Endpoint, view: ChainView, head: BlockRef) -> ChainUpdate:
        """Undo to the common ancestor and append the other branch in one update, so that no reader sees the state between."""
        ancestor = await self._ancestor(endpoint, view, min(head.number, view.tip.number))
        if ancestor.number < view.finalized:
            raise FinalityViolatedError(
                f"{endpoint.name} shows another chain after block {ancestor.number}, but block {view.finalized} was final here"
            )
        last = min(head.number, max(view.tip.number, ancestor.number + BLOCKS_PER_STEP))
        headers = await self._blocks.read_headers(endpoint, ancestor.number + 1, last, head)
        if headers and headers[0].parent_hash != ancestor.hash:
            raise endpoint.inconsistent_fault(
                "eth_getBlockByNumber", f"block {ancestor.number + 1} is not a child of block {ancestor.number}"
            )
        events = await self.decode_events(endpoint, await self._blocks.read_logs(endpoint, headers)) if headers else []
        depth = view.tip.number - ancestor.number
        self.counters.reorgs += 1
        self.counters.deepest_reorg = max(self.counters.deepest_reorg, depth)
        log.warning("chain.reorg", endpoint=endpoint.name, depth=depth, ancestor=ancestor.number, head=head.number)
        return ChainUpdate(undo_to=ancestor, blocks=tuple(header.to_block_ref() for header in headers), events=tuple(events))

    async def _ancestor(self, endpoint: Endpoint, view: ChainView, top: int) -> BlockRef:
        """Find the highest held block that the endpoint shows too, by galloping search: 2 log k calls for k blocks."""

        async def same(number: int) -> bool:
            held = view.block_at(number)
            assert held is not None
            return await self._still_there(endpoint, held)

        base = view.base.number
        bad, distance = top + 1, 1
        good = top
        while not (good >= base and await same(good)):
            if good <= base:
                raise FinalityViolatedError(describe_other_block(endpoint, view.base))
            bad, good = good, max(base, good - distance)
            distance *= 2
        while bad - good > 1:
            middle = (good + bad) // 2
            if await same(middle):
                good = middle
            else:
                bad = middle
        found = view.block_at(good)
        assert found is not None
        return found

    # -- events

    async def decode_events(self, endpoint: Endpoint, logs: Sequence[RpcLog]) -> list[ChainEvent]:
        """Decode checked logs in order, without other Earners' creations; complete the events of a v0 contract.

        Raises:
            RpcFault: no contract can have written a log; or the completion needed the endpoint, which failed.
        """
        try:
            events, odd = decode_logs(logs, self._earner_topic)
        except ValueError as error:
            raise endpoint.inconsistent_fault("eth_getLogs", f"a log that no contract writes: {error}") from error
        self.counters.odd_logs += odd
        return events if self.v0_completer is None else await self.v0_completer.complete_events(endpoint, events)


async def find_tags(endpoint: Endpoint) -> tuple[bool, bool]:
    """Return whether an endpoint shows a `safe` and a `finalized` block."""
    return await _find_tag(endpoint, "safe") is not None, await _find_tag(endpoint, "finalized") is not None


async def _find_tag(endpoint: Endpoint, tag: str) -> BlockRef | None:
    try:
        header = await endpoint.get_header_nullable(tag)
    except RpcFault as fault:
        if fault.kind in {FaultKind.UNSUPPORTED, FaultKind.ERROR}:
            return None
        raise
    return None if header is None else header.to_block_ref()
