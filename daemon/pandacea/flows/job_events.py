"""What a job's change tells others: the MQTT message of its state, the commitment of its result, and a result without content."""

from __future__ import annotations

from typing import Any, Final

from pandacea.domain.job import Job
from pandacea.flows.unit_of_work import Channel, OutboxMessage

CLEARED_RESULT: Final[dict[str, Any]] = {"output": b"", "manifest": None, "receipt": None, "truncated": False, "stored_bytes": 0}
"""Columns of a job whose result is thrown away. The blinded hash stays, for the Earner's own record."""


def job_message(job: Job, **more: object) -> OutboxMessage:
    """Build the MQTT message of a job's state: ids and states, never content."""
    payload = {"computation_id": job.computation_id, "lease_id": job.lease_id, "state": job.state.value, **more}
    return OutboxMessage(Channel.MQTT, f"mqtt:{job.computation_id}:{job.state}:{job.attempt}", f"computations/{job.state}", payload)


def result_commitment(job: Job, result_hash: str) -> OutboxMessage:
    """Build the message that commits a result's blinded hash on-chain."""
    payload = {"lease_id": job.lease_id, "computation_id": job.computation_id, "result_hash": result_hash}
    return OutboxMessage(Channel.CHAIN, f"commit:{job.computation_id}", "commitResult", payload)
