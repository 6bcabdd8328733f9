"""Sign a result: build the manifest that names every byte of it, and the receipt that the Earner's key signs."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from pandacea.domain.ids import Address, Hash32
from pandacea.domain.job import Job, Mode
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Artifact, Outcome
from pandacea.flows.ports import SandboxIdentity, SandboxJob
from pandacea_sdk.protocol.hashing import Signer
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.manifest import Digest, Manifest, ManifestInput, SandboxRecord, canonical_json, hash_manifest
from pandacea_sdk.protocol.receipt import Receipt


@dataclass(frozen=True, slots=True)
class SignedResult:
    """`manifest`: RFC 8785 JSON text; `result_hash`: its sha-256; `receipt`: its JSON members."""

    manifest: str
    result_hash: Hash32
    receipt: JsonObject


class SigningRefused(Exception):
    """The run is not one that may be signed for."""


@dataclass(frozen=True, slots=True)
class ExecutedInputs:
    """What a sandbox was given: the Earner signs for this, and for nothing that is read again afterwards."""

    code: bytes
    params: bytes
    inputs: tuple[ManifestInput, ...]

    @classmethod
    def from_sandbox_job(cls, sandbox_job: SandboxJob) -> ExecutedInputs:
        """Take what a sandbox was given.

        Raises:
            SigningRefused: one of its tables holds mock rows.
        """
        inputs = []
        for table in sandbox_job.inputs:
            if table.commitment is None:
                raise SigningRefused(f"the rows of {table.asset_id} have no commitment")
            inputs.append(ManifestInput(table.asset_id, table.variable_name, table.commitment))
        return cls(sandbox_job.code, sandbox_job.params, tuple(inputs))

    @classmethod
    def from_job(cls, job: Job) -> ExecutedInputs:
        """Take what the sandbox of a node that has died since was given: the job's row has pinned it since the job was accepted."""
        inputs = tuple(ManifestInput(item["asset_id"], item["variable_name"], item["commitment"]) for item in job.inputs)
        return cls(job.code.encode(), job.params.encode(), inputs)


@dataclass(frozen=True, slots=True)
class ResultSigner:
    """Signs results with the Earner's or operator's key; its fields are what every manifest of this node has in common."""

    earner: Address
    signer: Signer
    sandbox: SandboxIdentity
    limits: Limits
    threads: int
    node_version: str

    def sign_result(
        self, job: Job, executed: ExecutedInputs, outcome: Outcome, *, index: int, finished_at: float, audit_head: str
    ) -> SignedResult:
        """Build the manifest of a run and sign its receipt.

        Args:
            job: the accepted request.
            executed: what the sandbox was given.
            outcome: what the sandbox reported; its output and artifacts are named by digest.
            index: this is computation `index` (from 1) of the lease's `max_computations`.
            finished_at: Unix seconds.
            audit_head: hash of the audit log's last row before the one that records this result.

        Raises:
            SigningRefused: it was a rehearsal.
        """
        if job.mode is not Mode.LIVE:
            raise SigningRefused(f"{job.computation_id} ran in mode {job.mode.value}, and only a run on leased rows is signed")
        document = self._manifest(job, executed, outcome, index, finished_at, audit_head).to_json()
        digest = Hash32(hash_manifest(document))
        receipt = Receipt(
            chain_id=job.chain_id,
            contract=job.contract,
            lease_id=job.lease_id,
            computation_id=job.computation_id,
            request_hash=job.request_hash,
            product_version=job.product_version,
            result_hash=digest,
        )
        return SignedResult(canonical_json(document).decode(), digest, dict(receipt.sign(self.signer)))

    def _manifest(
        self, job: Job, executed: ExecutedInputs, outcome: Outcome, index: int, finished_at: float, audit_head: str
    ) -> Manifest:
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
            code_sha256=hashlib.sha256(executed.code).hexdigest(),
            params_sha256=hashlib.sha256(executed.params).hexdigest(),
            uploads=job.uploads,
            inputs=list(executed.inputs),
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
            audit_head=audit_head,
            started_at=job.started_at or job.created_at,
            finished_at=finished_at,
            blinding=secrets.token_bytes(32),
        )


def seed_of(job: Job) -> int:
    """Return the seed of a script's random generators: the request's, else 31 bits of the computation id; a replay starts from it, too."""
    if job.seed is not None:
        return job.seed
    return int(job.computation_id[2:10], 16) & 0x7FFF_FFFF


def _digest(item: Artifact) -> Digest:
    return Digest(item.sha256, item.size)
