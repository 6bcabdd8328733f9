"""What the audit log says of a computation: ids, keyed commitments and blinded hashes, never content nor a digest of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from pandacea.domain.job import Job, JobState
from pandacea_sdk.protocol.json_types import JsonObject

BY_NODE: Final = "node"
"""Who did it: the node, by a rule or a time limit."""
BY_OPERATOR: Final = "operator"
"""Who did it: the operator, by an account that is not known."""


def audit_job(job: Job) -> JsonObject:
    """Return what names a computation."""
    return {"computation_id": job.computation_id, "lease_id": job.lease_id, "product_id": job.product_id}


def audit_run(job: Job) -> JsonObject:
    """Return who runs what on which data, and by which rule."""
    return audit_job(job) | {
        "spender": job.spender,
        "request_hash": job.request_hash,
        "code_sha256": hashlib.sha256(job.code.encode()).hexdigest(),
        "product_version": job.product_version,
        "inputs": [dict(item) for item in job.inputs],
        "uploads": dict(job.uploads),
        "policy": job.policy_decision,
        "release": job.release,
        "attempt": job.attempt,
    }


def audit_run_end(job: Job, state: JobState, values: Mapping[str, Any]) -> JsonObject:
    """Return how a run ended and whether its result may leave: at once (`auto`), or only when the Earner says so (`held`)."""
    left = "nothing" if state in {JobState.HELD, JobState.CANCELLED} else "result" if values.get("result_hash") else "state"
    return audit_job(job) | {
        "state": state.value,
        "charge": str(values["charge"].value),
        "failure": None if values["failure"] is None else values["failure"].value,
        "release": job.release,
        "left": left,
        "result_hash": values.get("result_hash"),
    }
