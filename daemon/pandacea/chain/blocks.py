"""Reads blocks near the head: linked headers, and logs checked against their headers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeVar

import structlog

from pandacea.chain.logs import BloomFilterCheck, LogReader, is_saturated
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import BlockHeader, RpcLog
from pandacea.domain.chain_view import BlockRef
from pandacea.domain.ids import Hash32

log = structlog.get_logger(__name__)

T = TypeVar("T")

_AT_ONCE: Final = 16

MAX_UNEXPLAINED: Final = 256
"""Blocks that wait for another reading at most; what does not fit is left to the later reading of its range."""

UnexplainedBlocks = dict[Hash32, tuple[int, float]]
"""Hash of a block whose bloom filter announces more than came -> its number, and `time.monotonic()` of the reading."""


@dataclass(slots=True)
class FollowCounters:
    """Counts of what the follower met, for the metrics."""

    reorgs: int = 0
    deepest_reorg: int = 0
    odd_logs: int = 0
    """Logs with a known topic that do not decode as its event."""
    healed_logs: int = 0
    """Logs that only a second request returned."""
    rebuilt_leases: int = 0
    """Leases that gained an event by a later reading."""
    lagging_heads: int = 0
    """Heads older than the last processed block."""


async def retry_missing(request: Callable[[], Awaitable[T]]) -> T:
    """Call up to three times for something that exists: behind a load balancer the next node may have it already."""
    for pause in (0.02, 0.1):
        try:
            return await request()
        except RpcFault as fault:
            if fault.kind not in {FaultKind.NULL, FaultKind.ERROR}:
                raise
        await asyncio.sleep(pause)
    return await request()


@dataclass(slots=True)
class BlockReader:
    """Reads blocks of one contract near the head."""

    reader: LogReader
    pick_second: Callable[[Endpoint], Endpoint]
    """Another endpoint to ask again, or the same when there is none."""
    counters: FollowCounters
    unexplained: UnexplainedBlocks = field(default_factory=dict)
    _bloom: BloomFilterCheck = field(init=False)

    def __post_init__(self) -> None:
        self._bloom = BloomFilterCheck(self.reader.contract, self.reader.topics)

    async def read_headers(self, endpoint: Endpoint, first: int, last: int, head: BlockRef) -> list[BlockHeader]:
        """Read the headers of a range, each the parent of the next; `head`: the endpoint's newest block."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def read_header(number: int) -> BlockHeader:
            async with gate:
                return await retry_missing(lambda: endpoint.get_header(number))

        headers = await asyncio.gather(*(read_header(number) for number in range(first, last + 1)))
        for parent, child in pairwise(headers):
            if child.parent_hash != parent.hash:
                raise endpoint.inconsistent_fault("eth_getBlockByNumber", f"block {child.number} is not a child of the one before")
        if last == head.number and (
            not headers or headers[-1].hash != head.hash
        ):  # no headers: it shows by number the tip that is held
            raise endpoint.inconsistent_fault("eth_getBlockByNumber", f"two blocks at {last}")
        return list(headers)

    async def read_logs(self, endpoint: Endpoint, headers: Sequence[BlockHeader]) -> list[RpcLog]:
        """Read the logs of consecutive blocks and check them against the headers' hashes and bloom filters."""
        by_number = {int(header.number, 16): header for header in headers}
        logs: list[RpcLog] = []
        if len(headers) <= 3:
            found = await asyncio.gather(*(self._at(endpoint, header.hash, number) for number, header in by_number.items()))
            logs = [log for block in found for log in block]
        else:
            async for more in self.reader.read_ranges(endpoint, min(by_number), max(by_number)):
                logs.extend(more)
        by_block: dict[int, list[RpcLog]] = {}
        for found_log in logs:
            by_block.setdefault(found_log.number, []).append(found_log)
            if found_log.block_hash != by_number[found_log.number].hash:
                raise endpoint.inconsistent_fault("eth_getLogs", f"logs of a block {found_log.number} other than its header's")
        for number, header in by_number.items():
            came = by_block.get(number, [])
            if came and self._bloom.may_contain(header.logs_bloom) is False:
                raise endpoint.inconsistent_fault("eth_getLogs", f"logs in block {number} that its bloom filter rules out")
            if self._bloom.announces_more(header.logs_bloom, came):
                by_block[number] = await self._read_again(endpoint, header, number, came)
        return [found_log for number in sorted(by_block) for found_log in by_block[number]]

    async def _at(self, endpoint: Endpoint, block_hash: str, number: int) -> list[RpcLog]:
        return await retry_missing(lambda: self.reader.read_block(endpoint, block_hash, number))

    async def _read_again(self, endpoint: Endpoint, header: BlockHeader, number: int, before: list[RpcLog]) -> list[RpcLog]:
        """Ask once more, elsewhere if possible, for the logs of a block whose bloom filter announces more than came.

        A block that still has fewer waits for a later reading, unless its filter is so full that it announces everything.
        """
        other = self.pick_second(endpoint)
        try:
            found = await self.reader.read_block(other, header.hash, number)
        except RpcFault:
            if other is endpoint:
                raise
            found = await self.reader.read_block(endpoint, header.hash, number)
        together = {log.index: log for log in (*before, *found)}
        if new := len(together) - len(before):
            self.counters.healed_logs += new
            log.warning("chain.missing_logs_found", endpoint=endpoint.name, block=number, found=new)
        logs = [together[index] for index in sorted(together)]
        if (
            len(self.unexplained) < MAX_UNEXPLAINED
            and self._bloom.announces_more(header.logs_bloom, logs)
            and not is_saturated(header.logs_bloom)
        ):
            self.unexplained[Hash32(header.hash)] = (number, time.monotonic())
        return logs
