"""What listeners outside are told: an event's topic, its type, and the payload that `messages.schema.json` describes.

An event names ids, states and public facts of the chain, never content: whoever reads the broker is not thereby a reader of the data.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final, get_args

from pandacea.domain.chain_view import ChainEvent
from pandacea.domain.ids import Address, ComputationId, Hash32, LeaseId
from pandacea.domain.job import Job, JobState
from pandacea.domain.lease import LeaseEvent
from pandacea.domain.outcome import Failure
from pandacea_sdk.protocol.json_types import JsonObject

_LEFT_OUT: Final = frozenset({"reason"})
"""Arguments of contract events that a party wrote as free text, of any length: the chain has them."""

EVENT_TYPES: Final = (
    *(f"computations.{state}" for state in JobState),
    "results.committed",
    "leases.requested",
    "leases.auto-approved",
    *(f"leases.{event.__name__}" for event in get_args(LeaseEvent)),
)
"""Every type that a receiver can choose."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, once, to one computation, lease or result."""

    key: str
    """Names this happening, and no other, for good."""
    subject: str
    """`computations`, `leases` or `results`: the first level of the topic."""
    subject_id: str
    name: str
    data: JsonObject

    @property
    def id(self) -> str:
        """The id that every delivery of this event carries, on every channel."""
        return f"evt_{hashlib.sha256(self.key.encode()).hexdigest()[:32]}"

    @property
    def type(self) -> str:
        """What a receiver chooses events by."""
        return f"{self.subject}.{self.name}"

    @property
    def topic(self) -> str:
        """The MQTT topic below the Earner's address."""
        return f"{self.subject}/{self.subject_id}/{self.name}"

    def to_payload(self, now: float) -> JsonObject:
        """Return the message as it is sent; `now`: when it happened, in Unix seconds."""
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"id": self.id, "type": self.type, "timestamp": at, "data": self.data}


def computation_event(job: Job, failure: Failure | None = None) -> Event:
    """Build the event of a job's state."""
    data: JsonObject = {"computation_id": job.computation_id, "lease_id": job.lease_id, "state": job.state.value}
    if failure is not None:
        data["failure"] = failure.value
    key = f"{job.computation_id}:{job.state}:{job.attempt}"
    return Event(key, "computations", job.computation_id, job.state.value, data)


def commitment_event(lease_id: LeaseId, computation_id: ComputationId, result_hash: Hash32) -> Event:
    """Build the event of a result whose commitment is final on-chain."""
    data: JsonObject = {"computation_id": computation_id, "lease_id": lease_id, "result_hash": result_hash}
    return Event(f"committed:{computation_id}", "results", computation_id, "committed", data)


def lease_event(seen: ChainEvent, chain_id: int, contract: Address) -> Event:
    """Build the event of a contract's event; a reorganisation that brings it back into the same block does not make it another."""
    name = type(seen.event).__name__
    arguments = {  # uint256: numbers beyond 2^53 travel as strings
        key: value if isinstance(value, bool) else str(value) for key, value in asdict(seen.event).items() if key not in _LEFT_OUT
    }
    data: JsonObject = {
        "lease_id": seen.event.lease_id,
        "event": name,
        "block": seen.block,
        "block_hash": seen.block_hash,
        "log_index": seen.log_index,
        "transaction": seen.transaction,
        "arguments": arguments,
    }
    key = f"{chain_id}:{contract}:{seen.block_hash}:{seen.log_index}:{seen.part}"
    return Event(key, "leases", seen.event.lease_id, name, data)


def request_event(lease_id: LeaseId, spender: str, product_id: str | None, price_wei: int, decide_until: int) -> Event:
    """Build the event of a lease that waits for the Earner's decision; `decide_until` in Unix seconds."""
    data: JsonObject = {
        "lease_id": lease_id,
        "event": "requested",
        "spender": spender,
        "product_id": product_id,
        "price_wei": str(price_wei),
        "decide_until": decide_until,
    }
    return Event(f"requested:{lease_id}", "leases", lease_id, "requested", data)


def auto_approval_event(lease_id: LeaseId, rule: str) -> Event:
    """Build the event of an approval that was sent by a rule of `approval.auto`, without a person."""
    data: JsonObject = {"lease_id": lease_id, "event": "auto-approved", "rule": rule}
    return Event(f"auto-approved:{lease_id}", "leases", lease_id, "auto-approved", data)
