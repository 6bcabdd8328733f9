"""Seal a result: the manifest that names every byte of it, and the receipt that the Earner's key signs."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from pandacea.domain.ids import Address, Hash32
from pandacea.domain.job import Job
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Artifact, Outcome
from pandacea.flows.ports import SandboxIdentity
from pandacea_sdk.protocol.hashing import Signer
from pandacea_sdk.protocol.manifest import Digest, Manifest, ManifestInput, SandboxRecord, canonical, result_hash
from pandacea_sdk.protocol.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Sealed:
    """`manifest`: RFC 8785 JSON text; `result_hash`: its sha-256; `receipt`: as it travels."""

    manifest: str
    result_hash: Hash32
    receipt: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sealer:
    """What every manifest of this node has in common, and the key that signs receipts."""

    earner: Address
    signer: Signer
    sandbox: SandboxIdentity
    limits: Limits
    threads: int
    node_version: str

    def seal(self, job: Job, outcome: Outcome, *, index: int, finished_at: float) -> Sealed:
        """Build and sign.

        Args:
            job: the accepted request.
            outcome: what the sandbox said; its output and artifacts are named by digest.
            index: this is computation `index` (from 1) of the lease's `max_computations`.
            finished_at: Unix seconds.
        """
        document = self._manifest(job, outcome, index, finished_at).to_json()
        digest = Hash32(result_hash(document))
        receipt = Receipt(
            chain_id=job.chain_id,
            contract=job.contract,
            lease_id=job.lease_id,
            computation_id=job.computation_id,
            request_hash=job.request_hash,
            product_version=job.product_version,
            result_hash=digest,
        )
        return Sealed(canonical(document).decode(), digest, dict(receipt.signed(self.signer)))

    def _manifest(self, job: Job, outcome: Outcome, index: int, finished_at: float) -> Manifest:
        return Manifest(
            chain_id=job.chain_id,
            contract=job.contract,
            lease_id=job.lease_id,
            computation_id=job.computation_id,
            request_hash=job.request_hash,
            spender=job.spender,
            earner=self.earner,
            index=index,
            max_computations=job.max_computations,
            product_version=job.product_version,
            code_sha256=hashlib.sha256(job.code.encode()).hexdigest(),
            params_sha256=hashlib.sha256(job.params.encode()).hexdigest(),
            uploads=job.uploads,
            inputs=[ManifestInput(i["asset_id"], i["variable_name"], i["commitment"]) for i in job.inputs],
            sandbox=SandboxRecord(
                kind=self.sandbox.kind,
                environment=self.sandbox.environment,
                guest=self.sandbox.guest,
                limits=self.limits.as_json(),
                seed=seed_of(job),
                threads=self.threads,
            ),
            node_version=self.node_version,
            code_policy=job.policy_decision,
            exit_status=outcome.exit_status,
            failure=None if outcome.failure is None else outcome.failure.value,
            error_type=None if outcome.script_error is None else outcome.script_error.type,
            truncated=outcome.truncated,
            output=Digest(hashlib.sha256(outcome.output).hexdigest(), len(outcome.output)),
            artifacts={item.name: _digest(item) for item in outcome.artifacts},
            retry=max(job.attempt - 1, 0),
            audit_head=None,
            started_at=job.started_at or job.created_at,
            finished_at=finished_at,
            blinding=secrets.token_bytes(32),
        )


def seed_of(job: Job) -> int:
    """The seed a script's random generators start from: fixed by the computation id, so that a replay has it too. 31 bits."""
    return int(job.computation_id[2:10], 16) & 0x7FFF_FFFF


def _digest(item: Artifact) -> Digest:
    return Digest(item.sha256, item.size)
