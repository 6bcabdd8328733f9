"""Reads blocks near the head: linked headers, and logs checked against their headers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeVar

import structlog

from pandacea.chain.logs import BloomFilterCheck, LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import BlockHeader, RpcLog
from pandacea.domain.chain_view import BlockRef

log = structlog.get_logger(__name__)

T = TypeVar("T")

_AT_ONCE: Final = 16


@dataclass(slots=True)
class FollowCounters:
    """Counts of what the follower met, for the metrics."""

    reorgs: int = 0
    deepest_reorg: int = 0
    odd_logs: int = 0
    """Logs with a known topic that do not decode as its event."""
    healed_logs: int = 0
    """Logs that only a second request returned."""
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
        present = set()
        for found_log in logs:
            present.add(found_log.number)
            if found_log.block_hash != by_number[found_log.number].hash:
                raise endpoint.inconsistent_fault("eth_getLogs", f"logs of a block {found_log.number} other than its header's")
        for number, header in by_number.items():
            may = self._bloom.may_contain(header.logs_bloom)
            if number in present and may is False:
                raise endpoint.inconsistent_fault("eth_getLogs", f"logs in block {number} that its bloom filter rules out")
            if number not in present and may:
                logs.extend(await self._read_again(endpoint, header, number))
                logs.sort(key=lambda found_log: (found_log.number, found_log.index))
        return logs

    async def _at(self, endpoint: Endpoint, block_hash: str, number: int) -> list[RpcLog]:
        return await retry_missing(lambda: self.reader.read_block(endpoint, block_hash, number))

    async def _read_again(self, endpoint: Endpoint, header: BlockHeader, number: int) -> list[RpcLog]:
        """Ask once more, elsewhere if possible, for the logs of a block whose bloom filter announces some and that came without."""
        other = self.pick_second(endpoint)
        try:
            found = await self.reader.read_block(other, header.hash, number)
        except RpcFault:
            if other is endpoint:
                raise
            found = await self.reader.read_block(endpoint, header.hash, number)
        if found:
            self.counters.healed_logs += len(found)
            log.warning("chain.missing_logs_found", endpoint=endpoint.name, block=number, found=len(found))
        return found
