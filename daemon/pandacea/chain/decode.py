"""From a log to a lease event: pure, by hand, and total. What cannot be decoded is None, never an exception."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from eth_utils.crypto import keccak

from pandacea.chain.wire import Log
from pandacea.domain.ids import Address, ComputationId, Hash32, LeaseId, Timestamp, Wei
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

MAX_REASON_BYTES: Final = 256


def topic(signature: str) -> Hash32:
    """topic0 of an event: keccak256 of its signature."""
    return Hash32("0x" + keccak(text=signature).hex())


def selector(signature: str) -> str:
    """The first four bytes of a call: keccak256 of the function's signature, as `0x` + 8 hex digits."""
    return "0x" + keccak(text=signature)[:4].hex()


def _address(word: str) -> Address:
    return Address("0x" + word[-40:])


def _lease(log: Log) -> LeaseId:
    return LeaseId(log.topics[1])


def _word(data: str, place: int) -> int:
    start = 2 + 64 * place
    return int(data[start : start + 64], 16)


def _created(log: Log) -> LeaseEvent:
    _, lease, spender, earner = log.topics
    return LeaseCreated(LeaseId(lease), _address(spender), _address(earner), Wei(int(log.data, 16)))


def _terms(log: Log) -> LeaseEvent:
    _, lease, product = log.topics
    return LeaseTerms(LeaseId(lease), Hash32(product), Timestamp(_word(log.data, 0)), _word(log.data, 1))


def _approved(log: Log) -> LeaseEvent:
    return LeaseApproved(_lease(log))


def _committed(log: Log) -> LeaseEvent:
    _, lease, computation = log.topics
    return ResultCommitted(LeaseId(lease), ComputationId(computation), Hash32(log.data))


def _executed(log: Log) -> LeaseEvent:
    return LeaseExecuted(_lease(log))


def _cancelled(log: Log) -> LeaseEvent:
    return LeaseCancelled(_lease(log))


def _finalized(log: Log) -> LeaseEvent:
    _, lease, earner = log.topics
    return LeaseFinalized(LeaseId(lease), _address(earner), int(log.data, 16))


def _raised(log: Log) -> LeaseEvent:
    _, lease, spender, earner = log.topics
    return DisputeRaised(LeaseId(lease), _address(spender), _address(earner), _reason(log.data), Wei(_word(log.data, 1)))


def _reason(data: str) -> str:
    # A dispute denies whatever its reason says, so a reason that cannot be read must not hide the dispute.
    try:
        raw = bytes.fromhex(data[2:])
        start = int.from_bytes(raw[:32], "big")
        length = int.from_bytes(raw[start : start + 32], "big")
    except ValueError:
        return ""
    return raw[start + 32 : start + 32 + min(length, MAX_REASON_BYTES)].decode("utf-8", "replace")


def _resolved(log: Log) -> LeaseEvent:
    return DisputeResolved(_lease(log), _word(log.data, 0) != 0, Wei(_word(log.data, 1)))


CREATED: Final = topic("LeaseCreated(bytes32,address,address,uint256)")
EXECUTED: Final = topic("LeaseExecuted(bytes32)")

# Topics that must be there, data bytes at least, and the decoder.
_EVENTS: Final[Mapping[str, tuple[int, int, Callable[[Log], LeaseEvent]]]] = {
    CREATED: (4, 32, _created),
    topic("LeaseTerms(bytes32,bytes32,uint64,uint32)"): (3, 64, _terms),
    topic("LeaseApproved(bytes32)"): (2, 0, _approved),
    topic("ResultCommitted(bytes32,bytes32,bytes32)"): (3, 32, _committed),
    EXECUTED: (2, 0, _executed),
    topic("LeaseCancelled(bytes32)"): (2, 0, _cancelled),
    topic("LeaseFinalized(bytes32,address,uint256)"): (3, 32, _finalized),
    topic("DisputeRaised(bytes32,address,address,string,uint256)"): (4, 64, _raised),
    topic("DisputeResolved(bytes32,bool,uint256)"): (2, 64, _resolved),
}

TOPICS: Final = tuple(Hash32(known) for known in _EVENTS)
"""topic0 of every event the node follows."""

DENIALS: Final = tuple(
    topic(signature)
    for signature in (
        "LeaseCancelled(bytes32)",
        "DisputeRaised(bytes32,address,address,string,uint256)",
        "DisputeResolved(bytes32,bool,uint256)",
    )
)
"""What any endpoint may deny a lease by."""


def decode(log: Log) -> LeaseEvent | None:
    """The event of a log, or None: an unknown topic, other indexed arguments than ours, or data that is no such event."""
    topics = log.topics
    known = _EVENTS.get(topics[0]) if topics else None
    if known is None:
        return None
    count, size, build = known
    if len(topics) != count or len(log.data) < 2 + 2 * size:
        return None
    try:
        return build(log)
    except ValueError:  # no hex where a number must be
        return None


def concerns(log: Log, earner_topic: str) -> bool:
    """False for the creation of another Earner's lease: those are dropped before anything is decoded."""
    return log.topics[0] != CREATED or len(log.topics) != 4 or log.topics[3] == earner_topic


def as_topic(address: Address) -> str:
    """An address as an indexed argument."""
    return "0x" + "0" * 24 + address[2:]
