"""The manifest: which script ran, on which inputs, in which sandbox, with which result. RFC 8785 JSON; its sha-256 is the result hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import rfc8785

from pandacea_sdk.protocol.hashing import hex32
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.strict_json import MAX_INTEGER

MANIFEST_FORMAT: Final = "pandacea-manifest/1"

EXCLUDED_FROM_REPLAY: Final = ("not_replayed", "blinding")
"""Members that differ between two honest runs of the same request; all others must be equal when an arbiter replays it."""


@dataclass(frozen=True, slots=True)
class ManifestInput:
    """An input by its names, with the keyed commitment to its bytes: HMAC-SHA-256 of the stored bytes' digest, 64 hex digits."""

    asset_id: str
    variable_name: str
    commitment: str


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """Where the script ran: `environment` is an image id or the digest of a lock file, `guest` the guest program's sha-256."""

    kind: str
    environment: str
    guest: str
    limits: Mapping[str, int | float]
    seed: int
    threads: int


@dataclass(frozen=True, slots=True)
class Digest:
    """sha-256 (64 hex digits) and size in bytes of the output or of an artifact."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The members of a manifest. Hashes named `*_sha256` are 64 hex digits; ids and hashes of the chain are `0x` + 64."""

    chain_id: int
    contract: str
    lease_id: str
    computation_id: str
    request_hash: str
    spender: str
    earner: str
    index: int
    """This is computation number `index` (from 1) of `max_computations`."""
    max_computations: int
    product_version: str
    code_sha256: str
    params_sha256: str
    uploads: Mapping[str, str]
    inputs: Sequence[ManifestInput]
    sandbox: SandboxRecord
    node_version: str
    code_policy: str
    """The code policy's decision: the rule that allowed this script."""
    exit_status: int | None
    failure: str | None
    error_type: str | None
    truncated: bool
    output: Digest
    artifacts: Mapping[str, Digest]
    retry: int
    audit_head: str | None
    """Head of the Earner's audit log when the result was made, 64 hex digits: it binds the Earner to the log, too."""
    started_at: float
    finished_at: float
    """Unix seconds; in the member `not_replayed`, as two honest runs differ in them."""
    blinding: bytes
    """32 random bytes, so that the result hash on a public chain tells nothing about a result that could be guessed."""

    def to_json(self) -> JsonObject:
        """Build the manifest's JSON object, ready for RFC 8785."""
        if len(self.blinding) != 32:
            raise ValueError(f"blinding is 32 random bytes, got {len(self.blinding)}")
        return {
            "format": MANIFEST_FORMAT,
            "chain_id": _integer(self.chain_id),
            "contract": self.contract,
            "lease_id": self.lease_id,
            "computation_id": self.computation_id,
            "request_hash": self.request_hash,
            "spender": self.spender,
            "earner": self.earner,
            "index": self.index,
            "max_computations": self.max_computations,
            "product_version": self.product_version,
            "code_sha256": self.code_sha256,
            "params_sha256": self.params_sha256,
            "uploads": dict(self.uploads),
            "inputs": [
                {"asset_id": item.asset_id, "variable_name": item.variable_name, "commitment": item.commitment}
                for item in self.inputs
            ],
            "sandbox": {
                "kind": self.sandbox.kind,
                "environment": self.sandbox.environment,
                "guest": self.sandbox.guest,
                "limits": {name: _integer(value) for name, value in self.sandbox.limits.items()},
                "seed": _integer(self.sandbox.seed),
                "threads": self.sandbox.threads,
            },
            "node_version": self.node_version,
            "code_policy": self.code_policy,
            "exit": {"status": self.exit_status, "failure": self.failure, "error_type": self.error_type},
            "truncated": self.truncated,
            "output": {"sha256": self.output.sha256, "size": self.output.size},
            "artifacts": {name: {"sha256": digest.sha256, "size": digest.size} for name, digest in self.artifacts.items()},
            "retry": self.retry,
            "audit_head": self.audit_head,
            "not_replayed": {"started_at": self.started_at, "finished_at": self.finished_at},
            "blinding": self.blinding.hex(),
        }


def canonical_json(manifest: JsonMapping) -> bytes:
    """Write a manifest as RFC 8785 JSON: the bytes that are hashed.

    Raises:
        ValueError: the manifest holds what JSON cannot carry exactly (a lone surrogate, a float that is not finite).
    """
    try:
        return rfc8785.dumps(dict(manifest))
    except UnicodeEncodeError as error:  # rfc8785 sorts keys as UTF-16 and lets this one through
        raise ValueError("a key of the manifest holds half of a surrogate pair") from error


def hash_manifest(manifest: JsonMapping) -> str:
    """Compute the result hash: sha-256 of the canonical manifest as bytes32 in hex. The receipt signs it, the chain may keep it."""
    return hex32(hashlib.sha256(canonical_json(manifest)).digest())


def replayable_members(manifest: JsonMapping) -> JsonObject:
    """Select the members of a manifest that a replay must reproduce."""
    return {name: value for name, value in manifest.items() if name not in EXCLUDED_FROM_REPLAY}


def _integer(value: float) -> int | float | str:
    """Write an integer that a 64-bit float cannot hold as a string."""
    return str(value) if isinstance(value, int) and abs(value) > MAX_INTEGER else value
