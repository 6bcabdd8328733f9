"""The codes a node answers with: one table, code -> status and meaning, shared by the node, the SDK, OpenAPI and the docs.

A code is stable: programs may branch on it. The sentence in an answer's `detail` is for people and may change.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Kind(NamedTuple):
    """One code: its HTTP status and, in a few words, what it means (the RFC 9457 `title`)."""

    status: int
    title: str


class ProtocolError(Exception):
    """A message that breaks the protocol.

    `code` is a key of `KINDS`; `pointer` is the RFC 6901 path of the field, when there is one.
    """

    def __init__(self, code: str, detail: str, pointer: str | None = None) -> None:
        """`detail`: one sentence saying what is wrong, on what value, and what to do."""
        self.code = code
        self.detail = detail
        self.pointer = pointer
        super().__init__(detail)


BODY: Final = {
    "malformed-json": Kind(400, "The body is not JSON"),
    "not-utf8": Kind(400, "The body is not UTF-8"),
    "duplicate-key": Kind(400, "An object has the same key twice"),
    "name-collision": Kind(400, "Two names are the same after Unicode normalisation"),
    "name-not-normalised": Kind(400, "A name is not in Unicode normal form"),
    "json-too-deep": Kind(400, "The JSON is nested too deeply"),
    "number-out-of-range": Kind(400, "A number cannot be carried exactly"),
    "lone-surrogate": Kind(400, "A string holds half of a surrogate pair"),
    "wrong-type": Kind(400, "A field has the wrong type"),
    "missing-field": Kind(400, "A required field is missing"),
    "unknown-field": Kind(400, "A field is not known here"),
    "bad-lease-id": Kind(400, "Not a lease id"),
    "bad-asset-id": Kind(400, "Not an asset id"),
    "bad-variable-name": Kind(400, "Not a usable variable name"),
    "reserved-variable-name": Kind(400, "The variable name is taken"),
    "duplicate-variable": Kind(400, "A variable name appears twice"),
    "duplicate-asset": Kind(400, "An asset appears twice"),
    "too-many-inputs": Kind(400, "Too many inputs"),
    "bad-upload": Kind(400, "Not a usable upload"),
    "bad-product-version": Kind(400, "Not a product version"),
    "bad-mode": Kind(400, "Not a mode"),
    "code-empty": Kind(400, "The script is empty"),
    "code-too-large": Kind(413, "The script is too large"),
}

EDGE: Final = {
    "bad-request": Kind(400, "Not an HTTP request this server reads"),
    "bad-target": Kind(400, "The request target is not in its plain form"),
    "bad-host": Kind(400, "The Host header is missing or repeated"),
    "body-not-allowed": Kind(400, "This method takes no body"),
    "bad-parameter": Kind(400, "A query parameter or header has a bad value"),
    "unsupported-media-type": Kind(415, "The body must be application/json"),
    "content-encoding-refused": Kind(415, "Compressed bodies are not read"),
    "body-too-large": Kind(413, "The body is too large"),
    "headers-too-large": Kind(431, "The header section is too large"),
    "target-too-long": Kind(414, "The request target is too long"),
    "request-timeout": Kind(408, "The request came too slowly"),
    "too-many-connections": Kind(503, "Too many connections"),
    "rate-limited": Kind(429, "Too many requests"),
    "not-found": Kind(404, "Nothing is here"),
    "method-not-allowed": Kind(405, "The method is not allowed here"),
    "range-not-satisfiable": Kind(416, "The range lies outside the file"),
    "internal-error": Kind(500, "The node made an error"),
    "shutting-down": Kind(503, "The node is stopping"),
}

SIGNATURE: Final = {
    "signature-missing": Kind(401, "The request is not signed"),
    "signature-malformed": Kind(401, "The signature headers cannot be read"),
    "signature-parameters": Kind(401, "The signature's parameters are not the ones asked for"),
    "signature-coverage": Kind(401, "The signature does not cover what it must"),
    "wrong-chain": Kind(401, "The key is named on another chain"),
    "digest-missing": Kind(401, "Content-Digest is missing"),
    "digest-malformed": Kind(401, "Content-Digest cannot be read"),
    "signature-window": Kind(401, "The signature is valid for too long, or for no time at all"),
    "signature-not-yet-valid": Kind(401, "The signature was made in the future"),
    "signature-expired": Kind(401, "The signature has expired"),
    "wrong-authority": Kind(401, "The request is addressed to another server"),
    "digest-mismatch": Kind(401, "The body does not have the signed digest"),
    "unknown-spender": Kind(403, "No lease of this address is known here"),
    "signature-invalid": Kind(401, "The signature is not the named key's"),
    "request-replayed": Kind(401, "This signed request was used before"),
    "bad-idempotency-key": Kind(400, "Not an idempotency key"),
    "job-token-invalid": Kind(401, "The job token does not open this computation"),
}

LEASE: Final = {
    "lease-unknown": Kind(404, "No approved lease of this caller has this id here"),
    "approval-gone": Kind(403, "The chain no longer shows the approval"),
    "approval-unconfirmed": Kind(403, "The approval is not confirmed deeply enough yet"),
    "approval-unproven": Kind(403, "The approval cannot be proved"),
    "lease-cancelled": Kind(403, "The lease was cancelled"),
    "lease-disputed": Kind(403, "The lease is in dispute"),
    "lease-refunded": Kind(403, "The lease was refunded"),
    "lease-doubted": Kind(403, "The chain's endpoints disagree about the lease"),
    "lease-ended": Kind(403, "The lease allows no new computation"),
    "lease-expired": Kind(403, "The lease has expired"),
    "lease-expires-too-soon": Kind(403, "The lease expires before a run would be over"),
    "lease-used-up": Kind(403, "All computations of the lease are used"),
    "product-unknown": Kind(404, "The product is not served here"),
    "asset-outside-product": Kind(403, "An asset is not in the leased product"),
    "product-version-moved": Kind(409, "The product is at another version"),
}

JOB: Final = {
    "computation-interrupted": Kind(503, "The node ended the computation; the same request may be sent again"),
    "idempotency-conflict": Kind(409, "The idempotency key was used with another request"),
    "computation-unknown": Kind(404, "No such computation is visible to this caller"),
    "artifact-unknown": Kind(404, "No such artifact"),
    "result-held": Kind(409, "The Earner has not released the result"),
    "result-refused": Kind(403, "The Earner refused to release the result"),
    "result-expired": Kind(410, "The result is no longer kept"),
    "computation-failed": Kind(409, "The computation ended without a result"),
    "computation-cancelled": Kind(409, "The computation was cancelled"),
    "not-cancellable": Kind(409, "The computation has ended"),
    "not-held": Kind(409, "The result is not held"),
    "too-many-jobs": Kind(429, "Too many computations are waiting"),
    "too-many-streams": Kind(429, "Too many open streams"),
    "upload-unknown": Kind(404, "An upload named by the request is not here"),
    "upload-mismatch": Kind(400, "The uploaded bytes do not have the digest in the path"),
    "uploads-full": Kind(507, "The Spender's room for uploads is full"),
    "uploads-too-large": Kind(413, "The uploads named by the request do not fit into the sandbox"),
    "rehearsal-off": Kind(403, "The product allows no rehearsal"),
    "results-full": Kind(507, "The Spender's room for results is full"),
    "disk-full": Kind(503, "The node has no room for another result"),
    "unavailable": Kind(503, "The node cannot know or act right now"),
    "broken": Kind(503, "The node's operator must mend something"),
    "refused": Kind(403, "Refused"),
}

CODE: Final = {
    "code-not-utf8": Kind(400, "The script is not UTF-8"),
    "code-nul": Kind(400, "The script holds a NUL"),
    "code-syntax": Kind(400, "The script does not compile"),
    "code-too-complex": Kind(400, "The script is too complex to check"),
    "code-import-refused": Kind(403, "The script imports a refused module"),
    "code-import-missing": Kind(400, "The script imports a module the environment lacks"),
    "code-not-approved": Kind(403, "The Earner has not approved this script"),
    "code-refused": Kind(403, "The Earner refused this script"),
    "code-unknown": Kind(404, "No such script was handed in here"),
    "bad-product-id": Kind(400, "Not a product id"),
    "bad-params-schema": Kind(400, "Not a params schema that is understood here"),
    "note-too-long": Kind(400, "The note is too long"),
    "too-many-submissions": Kind(429, "Too many scripts wait for a decision"),
}

# Never sent by a node: the SDK raises these about an answer. Status 0 says so.
ANSWER: Final = {
    "bad-answer": Kind(0, "The answer is not a result"),
    "bad-manifest": Kind(0, "The manifest speaks of something else"),
    "bytes-mismatch": Kind(0, "The bytes are not the ones in the manifest"),
    "bad-receipt": Kind(0, "The receipt cannot be trusted"),
    "not-on-chain": Kind(0, "The chain says something else"),
    "unsafe-artifact": Kind(0, "An artifact cannot be kept safely"),
    "bad-usage": Kind(0, "The client cannot be used like this"),
    "no-answer": Kind(0, "The node did not answer"),
    "still-running": Kind(0, "The computation has not ended yet"),
}

KINDS: Final[dict[str, Kind]] = {**BODY, **EDGE, **SIGNATURE, **LEASE, **JOB, **CODE, **ANSWER}
