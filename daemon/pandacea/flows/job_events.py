"""What a job's end leaves for others: the commitment of its result, and a result without content."""

from __future__ import annotations

from typing import Any, Final

from pandacea.domain.job import Job
from pandacea.flows.unit_of_work import Channel, OutboxMessage

CLEARED_RESULT: Final[dict[str, Any]] = {"output": b"", "manifest": None, "receipt": None, "truncated": False, "stored_bytes": 0}
"""Columns of a job whose result is thrown away. The blinded hash stays, for the Earner's own record."""


def result_commitment(job: Job, result_hash: str) -> OutboxMessage:
    """Build the message that commits a result's blinded hash on-chain."""
    payload = {"lease_id": job.lease_id, "computation_id": job.computation_id, "result_hash": result_hash}
    return OutboxMessage(Channel.CHAIN, f"commit:{job.computation_id}", "commitResult", payload)
