"""Decodes logs into lease events: pure and total. A log that cannot be decoded gives None, not an exception."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from pandacea.chain.rpc_messages import RpcLog
from pandacea.domain.chain_view import ChainEvent
from pandacea.domain.ids import Address, Hash32, Wei
from pandacea.domain.lease import (
    DisputeRaised,
    DisputeResolved,
    LeaseApproved,
    LeaseCancelled,
    LeaseCreated,
    LeaseEvent,
    LeaseExecuted,
    LeaseFinalized,
    LeaseTerms,
    ResultCommitted,
)
from pandacea_sdk.protocol.hashing import hex32, keccak256

MAX_REASON_BYTES: Final = 256
"""Of a dispute's reason, as kept."""

_ADDRESS_PADDING: Final = "0x" + "0" * 24
"""The first 12 bytes of an address as a word."""
_UINT64: Final = 2**64 - 1
_UINT32: Final = 2**32 - 1


def event_topic(signature: str) -> Hash32:
    """Compute topic0 of an event: keccak256 of its signature."""
    return Hash32(hex32(keccak256(signature.encode())))


def function_selector(signature: str) -> str:
    """Compute the first four bytes of a call from the function's signature, as `0x` + 8 hex digits."""
    return "0x" + keccak256(signature.encode())[:4].hex()


_Hex: TypeAlias = Any
"""Hex text as it came, for whichever NewType of text an event takes: a NewType is a call, and there are a hundred thousand logs."""
_Topics = list[_Hex]


def _word(data: str, index: int) -> int:
    start = 2 + 64 * index
    return int(data[start : start + 64], 16)


def _created(topics: _Topics, data: _Hex) -> LeaseEvent:
    _, lease_id, spender, earner = topics
    if spender[:26] != _ADDRESS_PADDING or earner[:26] != _ADDRESS_PADDING:
        raise ValueError("an address of more than 20 bytes")
    price: Any = int(data, 16)
    by: _Hex = "0x" + spender[26:]
    to: _Hex = "0x" + earner[26:]
    return LeaseCreated(lease_id, by, to, price)


def _terms(topics: _Topics, data: _Hex) -> LeaseEvent:
    expires: Any = int(data[2:66], 16)
    computations = int(data[66:130], 16)
    if expires > _UINT64 or computations > _UINT32:
        raise ValueError("a number beyond its type")
    return LeaseTerms(topics[1], topics[2], expires, computations)


def _approved(topics: _Topics, _: _Hex) -> LeaseEvent:
    return LeaseApproved(topics[1])


def _committed(topics: _Topics, data: _Hex) -> LeaseEvent:
    return ResultCommitted(topics[1], topics[2], data)


def _executed(topics: _Topics, _: _Hex) -> LeaseEvent:
    return LeaseExecuted(topics[1])


def _cancelled(topics: _Topics, _: _Hex) -> LeaseEvent:
    return LeaseCancelled(topics[1])


def _finalized(topics: _Topics, data: _Hex) -> LeaseEvent:
    return LeaseFinalized(topics[1], _address(topics[2]), int(data, 16))


def _raised(topics: _Topics, data: _Hex) -> LeaseEvent:
    if len(data) < 2 + 128:
        raise ValueError("no stake")
    return DisputeRaised(topics[1], _address(topics[2]), _address(topics[3]), _reason(data), Wei(_word(data, 1)))


def _resolved(topics: _Topics, data: _Hex) -> LeaseEvent:
    return DisputeResolved(topics[1], _word(data, 0) != 0, Wei(_word(data, 1)))


def _address(word: str) -> Address:
    if word[:26] != _ADDRESS_PADDING:
        raise ValueError("an address of more than 20 bytes")
    return Address("0x" + word[26:])


def _reason(data: str) -> str:
    # A dispute denies whatever its reason says, so an unreadable reason must not hide it.
    try:
        raw = bytes.fromhex(data[2:])
        start = int.from_bytes(raw[:32], "big")
        length = int.from_bytes(raw[start : start + 32], "big")
    except ValueError:
        return ""
    return raw[start + 32 : start + 32 + min(length, MAX_REASON_BYTES)].decode("utf-8", "replace")


LEASE_CREATED_TOPIC: Final = event_topic("LeaseCreated(bytes32,address,address,uint256)")
LEASE_EXECUTED_TOPIC: Final = event_topic("LeaseExecuted(bytes32)")

# Number of topics, characters of data (0x and two a byte; 0: the builder checks), and the builder.
_EVENTS: Final[Mapping[str, tuple[int, int, Callable[[_Topics, _Hex], LeaseEvent]]]] = {
    LEASE_CREATED_TOPIC: (4, 2 + 64, _created),
    event_topic("LeaseTerms(bytes32,bytes32,uint64,uint32)"): (3, 2 + 128, _terms),
    event_topic("LeaseApproved(bytes32)"): (2, 2, _approved),
    event_topic("ResultCommitted(bytes32,bytes32,bytes32)"): (3, 2 + 64, _committed),
    LEASE_EXECUTED_TOPIC: (2, 2, _executed),
    event_topic("LeaseCancelled(bytes32)"): (2, 2, _cancelled),
    event_topic("LeaseFinalized(bytes32,address,uint256)"): (3, 2 + 64, _finalized),
    event_topic("DisputeRaised(bytes32,address,address,string,uint256)"): (4, 0, _raised),
    event_topic("DisputeResolved(bytes32,bool,uint256)"): (2, 2 + 128, _resolved),
}

FOLLOWED_TOPICS: Final = tuple(Hash32(known) for known in _EVENTS)
"""topic0 of every event the node follows."""

DENIAL_TOPICS: Final = tuple(
    event_topic(signature)
    for signature in (
        "LeaseCancelled(bytes32)",
        "DisputeRaised(bytes32,address,address,string,uint256)",
        "DisputeResolved(bytes32,bool,uint256)",
    )
)
"""topic0 of the events by which any endpoint may deny a lease."""


def decode_event(topics: list[str], data: str) -> LeaseEvent | None:
    """Decode a log; None for an unknown topic, other indexed arguments than the contract's, or data of another form."""
    known = _EVENTS.get(topics[0]) if topics else None
    if known is None:
        return None
    count, size, build = known
    if len(topics) != count or len(data) < size:
        return None
    try:
        return build(topics, data) if not size or len(data) == size else None
    except ValueError:  # not hex where a number must be, or a number beyond its type
        return None


def decode_logs(logs: Sequence[RpcLog], earner_topic: str) -> tuple[list[ChainEvent], int]:
    """Decode checked logs in order, without other Earners' creations; also count the logs that are not such events.

    One loop with `decode_event` inlined: a hundred thousand logs pass through here.

    Raises:
        ValueError: a log has the topics of an event, and a value or length that no contract can write: the endpoint lies.
    """
    events: list[ChainEvent] = []
    odd = 0
    add, known, new = events.append, _EVENTS.get, tuple.__new__  # a NamedTuple's own constructor takes twice as long
    unknown = (0, 0, _created)  # no topics: an unknown log counts as odd
    for log in logs:
        topics, data = log.topics, log.data
        count, size, build = known(topics[0], unknown)
        if count == 4 and build is _created and len(topics) == 4 and topics[3] != earner_topic:
            continue  # another Earner's: dropped before decoding
        if len(topics) != count or len(data) < size:
            odd += 1
            continue
        if size and len(data) != size:
            raise ValueError(
                f"{len(data) // 2 - 1} bytes of data instead of {size // 2 - 1} (block {log.number}, index {log.index})"
            )
        event = build(topics, data)
        add(new(ChainEvent, (log.number, log.block_hash, log.index, log.transaction_hash, event, 0)))
    return events, odd


def address_topic(address: Address) -> str:
    """Encode an address as an indexed argument."""
    return "0x" + "0" * 24 + address[2:]
