"""Reads logs: by ranges that fit the provider, or by block hash at the tip. Every log is checked before it is used."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from eth_utils.crypto import keccak

from pandacea.chain.events import FOLLOWED_TOPICS
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import RpcLog, parse_quantity
from pandacea.domain.ids import HASH32, Address, Hash32
from pandacea_sdk.protocol.json_types import JsonObject

FIRST_SPAN_BLOCKS: Final = 64
MAX_SPAN_BLOCKS: Final = 50_000
TARGET_LOGS_PER_ANSWER: Final = 9_000
"""Logs per answer that the spans aim at: 5 MB of JSON, so a backfill of any length needs the same memory; many providers allow 10,000."""

_LOG: Final = re.compile(r"(?:0x[0-9a-f]{64} ){2,5}0x[0-9a-f]*")
"""Topics, transaction hash and data of a log, separated by blanks."""
_HEX: Final = re.compile(r"0x[0-9a-f]*")

_INDEX_BOUND: Final = 2**31
"""Exclusive bound of a log index; no block holds as many logs."""

SATURATED_BLOOM_BITS: Final = 1_228
"""Set bits (60 of 100) from which a bloom filter says yes to every fifth question (L2 blocks of thousands of transactions)."""

GROW_EVERY_ANSWERS: Final = 8
"""After a refusal the span grows only with every eighth answer."""


@dataclass(slots=True)
class LogReader:
    """Reads one contract's logs. Remembers for each endpoint how many blocks it may ask for at once."""

    contract: Address
    topics: Sequence[str] = FOLLOWED_TOPICS
    indexed_filters: tuple[str, ...] = ()
    """Indexed arguments to filter by, after topic0."""
    spans: dict[str, int] = field(default_factory=dict)
    """Blocks to ask for at once, by endpoint URL."""
    max_spans: dict[str, int] = field(default_factory=dict)
    """Blocks an endpoint said it allows, by URL."""
    answers_since_refusal: dict[str, int] = field(default_factory=dict)
    """Answers since an endpoint last refused a range, by URL: its span grows slowly."""

    async def read_range(self, endpoint: Endpoint, first: int, last: int) -> tuple[int, list[RpcLog]]:
        """Read the logs of `first` and following blocks, at most to `last`; return the last block read and the logs.

        Raises:
            RpcFault: the endpoint failed, or refused even a single block.
        """
        while True:
            span = min(self.spans.get(endpoint.url, FIRST_SPAN_BLOCKS), last - first + 1)
            end = first + span - 1
            try:
                logs = await endpoint.call_method(
                    "eth_getLogs", [self._filter(fromBlock=hex(first), toBlock=hex(end))], list[RpcLog]
                )
            except RpcFault as fault:
                if fault.kind not in {FaultKind.RANGE, FaultKind.TIMEOUT} or span <= 1:
                    raise
                self.answers_since_refusal[endpoint.url] = 0
                if fault.range_hint is not None and fault.range_hint.span is not None:
                    self.max_spans[endpoint.url] = fault.range_hint.span
                self.spans[endpoint.url] = _smaller(fault, first, span)
                continue
            self._grow(endpoint.url, span, len(logs), whole=end == last)
            return end, check_logs(endpoint, logs, self.contract, self.topics, first, end)

    async def read_ranges(self, endpoint: Endpoint, first: int, last: int) -> AsyncIterator[list[RpcLog]]:
        """Read the logs of all blocks `first` to `last`, one list per request.

        Raises:
            RpcFault: as `read_range`.
        """
        while first <= last:
            end, logs = await self.read_range(endpoint, first, last)
            yield logs
            first = end + 1

    async def read_block(self, endpoint: Endpoint, block_hash: str, number: int) -> list[RpcLog]:
        """Read the logs of one block by its hash, so that an endpoint without this block cannot answer with another's logs."""
        logs = await endpoint.call_method("eth_getLogs", [self._filter(blockHash=block_hash)], list[RpcLog])
        checked = check_logs(endpoint, logs, self.contract, self.topics, number, number)
        if any(log.block_hash != block_hash for log in checked):
            raise endpoint.inconsistent_fault("eth_getLogs", f"logs of a block other than {block_hash}")
        return checked

    def _filter(self, **where: str) -> JsonObject:
        return {"address": self.contract, "topics": [list(self.topics), *self.indexed_filters], **where}

    def _grow(self, url: str, span: int, count: int, *, whole: bool) -> None:
        known = self.spans.get(url, FIRST_SPAN_BLOCKS)
        if count > TARGET_LOGS_PER_ANSWER:
            self.spans[url] = max(1, span * TARGET_LOGS_PER_ANSWER // count)
        elif not whole and span == known:
            factor = 2.0
            if url in self.answers_since_refusal:
                self.answers_since_refusal[url] += 1
                if self.answers_since_refusal[url] % GROW_EVERY_ANSWERS:
                    return
                factor = 1.25
            if count:
                factor = min(factor, TARGET_LOGS_PER_ANSWER / count)
            if factor > 1:
                self.spans[url] = min(self.max_spans.get(url, MAX_SPAN_BLOCKS), max(span + 1, int(span * factor)))


def _smaller(fault: RpcFault, first: int, span: int) -> int:
    hint = fault.range_hint
    if hint is not None:
        if hint.span is not None and hint.span < span:
            return max(1, hint.span)
        if hint.first == first and hint.last is not None and first <= hint.last < first + span - 1:
            return hint.last - first + 1
    return max(1, span // 2)


def check_logs(
    endpoint: Endpoint, logs: list[RpcLog], contract: Address, topics: Sequence[str], first: int, last: int
) -> list[RpcLog]:
    """Check logs; return them sorted by (block, index), each once, without removed ones, `number` and `index` filled in, hex in lower case.

    Logs that pass are well formed: every topic and hash is 32 bytes of hex, the data whole bytes. Whether they are events of the
    contract is checked by `decode_logs`, which counts those that are not.

    Raises:
        RpcFault: a log is malformed, or is of a contract, topic or block that was not asked for; the answer is discarded.
    """
    allowed = frozenset(topics)
    well_formed = _LOG.fullmatch
    if logs and not all(map(str.islower, logs[0].topics)):  # an endpoint writes all hex in one case
        for log in logs:
            _lower(log)
    ordered = True
    text, block_hash, number, before = "", "", -1, -1
    for log in logs:
        try:
            if log.block_number != text or log.block_hash != block_hash:  # logs come block by block
                text, block_hash, block = log.block_number, log.block_hash, parse_quantity(log.block_number)
                if not first <= block <= last or not HASH32.fullmatch(block_hash):
                    raise endpoint.inconsistent_fault(
                        "eth_getLogs", f"a log of a block that was not asked for ({block}, {block_hash[:70]})"
                    )
                ordered, number, before = ordered and block > number, block, -1
            index = int(log.log_index, 16)
        except ValueError as error:
            raise endpoint.inconsistent_fault("eth_getLogs", "a log whose block number or index is malformed") from error
        found = log.topics
        # One match for all fields. A topic with a blank in it cannot pass for two: the text would be longer by the blank.
        form = f"{' '.join(found)} {log.transaction_hash} {log.data}"
        if (
            not found
            or found[0] not in allowed
            or (log.address != contract and log.address.lower() != contract)
            or not 0 <= index < _INDEX_BOUND
            or len(form) != 67 * (len(found) + 1) + len(log.data)
            or len(log.data) % 2
            or well_formed(form) is None
        ):
            raise endpoint.inconsistent_fault(
                "eth_getLogs", f"a log that was not asked for (block {number}, index {log.log_index[:20]})"
            )
        if index <= before or log.removed:
            ordered = False
        before = index
        log.number, log.index = number, index  # type: ignore[assignment]  # a BlockNumber; the NewType's call is too slow here
    return logs if ordered else _in_order(endpoint, logs)


def _lower(log: RpcLog) -> None:
    """Convert a log's hex to lower case, as the node keeps all hex."""
    log.topics, log.data = [topic.lower() for topic in log.topics], log.data.lower()
    log.block_hash, log.transaction_hash = Hash32(log.block_hash.lower()), Hash32(log.transaction_hash.lower())


def _in_order(endpoint: Endpoint, logs: list[RpcLog]) -> list[RpcLog]:
    kept: dict[tuple[int, int], RpcLog] = {}
    for log in logs:
        if log.removed:
            continue  # it announces a reorg, which the parent hashes show anyway
        other = kept.setdefault((log.number, log.index), log)
        if other.block_hash != log.block_hash:
            raise endpoint.inconsistent_fault("eth_getLogs", f"two logs at block {log.number}, index {log.index}")
    return [kept[position] for position in sorted(kept)]


def bloom_bits(value: str) -> int:
    """Compute the three bits that a value (hex) sets in a block's 2048-bit bloom filter (Yellow Paper, 4.4.3)."""
    digest = keccak(hexstr=value)
    bits = 0
    for start in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[start : start + 2], "big") & 2047)
    return bits


class BloomFilterCheck:
    """Tells from a block's header whether the block may contain logs of the contract."""

    def __init__(self, contract: Address, topics: Sequence[str] = FOLLOWED_TOPICS) -> None:
        """`topics`: the events asked for."""
        self._address = bloom_bits(contract)
        self._topics = {topic: bloom_bits(topic) for topic in topics}

    def may_contain(self, bloom: str) -> bool | None:
        """Return True for perhaps, False for certainly not, None when the chain keeps no blooms (empty or unreadable)."""
        if _HEX.fullmatch(bloom) is None or len(bloom) <= 2:
            return None
        value = int(bloom, 16)
        if value & self._address != self._address:
            return None if value == 0 else False
        return any(value & bits == bits for bits in self._topics.values())

    def announces_more(self, bloom: str, logs: Sequence[RpcLog]) -> bool:
        """Whether the filter has the contract's bits and those of an event of which no log came."""
        if not self.may_contain(bloom):
            return False
        if not logs:
            return True
        value = int(bloom, 16)
        came = {log.topics[0] for log in logs}
        return any(value & bits == bits for topic, bits in self._topics.items() if topic not in came)


def is_saturated(bloom: str) -> bool:
    """Whether a filter that could be read is so full that its yes says little."""
    return int(bloom, 16).bit_count() > SATURATED_BLOOM_BITS
