"""The problem codes: one table from code to status and meaning, for the node, the SDK, OpenAPI and the docs.

A code is stable: programs may branch on it. The sentence in a response's `detail` is for people and may change.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class ProblemKind(NamedTuple):
    """HTTP status of a code and, in a few words, its meaning (the RFC 9457 `title`)."""

    status: int
    title: str


class ProtocolError(Exception):
    """A message breaks the protocol.

    `code` is a key of `PROBLEM_KINDS`; `pointer` is the RFC 6901 path of the field, when there is one.
    """

    def __init__(self, code: str, detail: str, pointer: str | None = None) -> None:
        """`detail`: one sentence that says what is wrong, on which value, and what to do."""
        self.code = code
        self.detail = detail
        self.pointer = pointer
        super().__init__(detail)


BODY_PROBLEMS: Final = {
    "malformed-json": ProblemKind(400, "The body is not JSON"),
    "not-utf8": ProblemKind(400, "The body is not UTF-8"),
    "duplicate-key": ProblemKind(400, "An object has the same key twice"),
    "name-collision": ProblemKind(400, "Two names are the same after Unicode normalisation"),
    "name-not-normalised": ProblemKind(400, "A name is not in Unicode normal form"),
    "json-too-deep": ProblemKind(400, "The JSON is nested too deeply"),
    "number-out-of-range": ProblemKind(400, "A number cannot be carried exactly"),
    "lone-surrogate": ProblemKind(400, "A string holds half of a surrogate pair"),
    "wrong-type": ProblemKind(400, "A field has the wrong type"),
    "missing-field": ProblemKind(400, "A required field is missing"),
    "unknown-field": ProblemKind(400, "A field is not known here"),
    "bad-lease-id": ProblemKind(400, "Not a lease id"),
    "bad-asset-id": ProblemKind(400, "Not an asset id"),
    "bad-variable-name": ProblemKind(400, "Not a usable variable name"),
    "reserved-variable-name": ProblemKind(400, "The variable name is taken"),
    "duplicate-variable": ProblemKind(400, "A variable name appears twice"),
    "duplicate-asset": ProblemKind(400, "An asset appears twice"),
    "too-many-inputs": ProblemKind(400, "Too many inputs"),
    "bad-upload": ProblemKind(400, "Not a usable upload"),
    "bad-product-version": ProblemKind(400, "Not a product version"),
    "bad-mode": ProblemKind(400, "Not a mode"),
    "bad-seed": ProblemKind(400, "Not a seed"),
    "code-empty": ProblemKind(400, "The script is empty"),
    "code-too-large": ProblemKind(413, "The script is too large"),
}

HTTP_PROBLEMS: Final = {
    "bad-request": ProblemKind(400, "Not an HTTP request this server reads"),
    "bad-target": ProblemKind(400, "The request target is not in its plain form"),
    "bad-host": ProblemKind(400, "The Host header is missing or repeated"),
    "body-not-allowed": ProblemKind(400, "This method takes no body"),
    "bad-parameter": ProblemKind(400, "A query parameter or header has a bad value"),
    "unsupported-media-type": ProblemKind(415, "The body must be application/json"),
    "content-encoding-refused": ProblemKind(415, "Compressed bodies are not read"),
    "body-too-large": ProblemKind(413, "The body is too large"),
    "headers-too-large": ProblemKind(431, "The header section is too large"),
    "target-too-long": ProblemKind(414, "The request target is too long"),
    "request-timeout": ProblemKind(408, "The request came too slowly"),
    "too-many-connections": ProblemKind(503, "Too many connections"),
    "rate-limited": ProblemKind(429, "Too many requests"),
    "not-found": ProblemKind(404, "Nothing is here"),
    "method-not-allowed": ProblemKind(405, "The method is not allowed here"),
    "range-not-satisfiable": ProblemKind(416, "The range lies outside the file"),
    "internal-error": ProblemKind(500, "The node made an error"),
    "shutting-down": ProblemKind(503, "The node is stopping"),
}

SIGNATURE_PROBLEMS: Final = {
    "signature-missing": ProblemKind(401, "The request is not signed"),
    "signature-malformed": ProblemKind(401, "The signature headers cannot be read"),
    "signature-parameters": ProblemKind(401, "The signature's parameters are not the ones asked for"),
    "signature-coverage": ProblemKind(401, "The signature does not cover what it must"),
    "wrong-chain": ProblemKind(401, "The key is named on another chain"),
    "digest-missing": ProblemKind(401, "Content-Digest is missing"),
    "digest-malformed": ProblemKind(401, "Content-Digest cannot be read"),
    "signature-window": ProblemKind(401, "The signature is valid for too long, or for no time at all"),
    "signature-not-yet-valid": ProblemKind(401, "The signature was made in the future"),
    "signature-expired": ProblemKind(401, "The signature has expired"),
    "wrong-authority": ProblemKind(401, "The request is addressed to another server"),
    "digest-mismatch": ProblemKind(401, "The body does not have the signed digest"),
    "unknown-spender": ProblemKind(403, "No lease of this address is known here"),
    "signature-invalid": ProblemKind(401, "The signature is not the named key's"),
    "request-replayed": ProblemKind(401, "This signed request was used before"),
    "bad-idempotency-key": ProblemKind(400, "Not an idempotency key"),
    "job-token-invalid": ProblemKind(401, "The job token does not open this computation"),
}

LEASE_PROBLEMS: Final = {
    "lease-unknown": ProblemKind(404, "No approved lease of this caller has this id here"),
    "approval-gone": ProblemKind(403, "The chain no longer shows the approval"),
    "approval-unconfirmed": ProblemKind(403, "The approval is not confirmed deeply enough yet"),
    "approval-unproven": ProblemKind(403, "The approval cannot be proved"),
    "lease-cancelled": ProblemKind(403, "The lease was cancelled"),
    "lease-disputed": ProblemKind(403, "The lease is in dispute"),
    "lease-refunded": ProblemKind(403, "The lease was refunded"),
    "lease-doubted": ProblemKind(403, "The chain's endpoints disagree about the lease"),
    "lease-ended": ProblemKind(403, "The lease allows no new computation"),
    "lease-expired": ProblemKind(403, "The lease has expired"),
    "lease-expires-too-soon": ProblemKind(403, "The lease expires before a run would be over"),
    "lease-used-up": ProblemKind(403, "All computations of the lease are used"),
    "product-unknown": ProblemKind(404, "The product is not served here"),
    "asset-outside-product": ProblemKind(403, "An asset is not in the leased product"),
    "product-version-moved": ProblemKind(409, "The product is at another version"),
}

JOB_PROBLEMS: Final = {
    "computation-interrupted": ProblemKind(503, "The node ended the computation; the same request may be sent again"),
    "idempotency-conflict": ProblemKind(409, "The idempotency key was used with another request"),
    "computation-unknown": ProblemKind(404, "No such computation is visible to this caller"),
    "artifact-unknown": ProblemKind(404, "No such artifact"),
    "result-held": ProblemKind(409, "The Earner has not released the result"),
    "result-refused": ProblemKind(403, "The Earner refused to release the result"),
    "result-expired": ProblemKind(410, "The result is no longer kept"),
    "computation-failed": ProblemKind(409, "The computation ended without a result"),
    "computation-cancelled": ProblemKind(409, "The computation was cancelled"),
    "not-cancellable": ProblemKind(409, "The computation has ended"),
    "not-held": ProblemKind(409, "The result is not held"),
    "too-many-jobs": ProblemKind(429, "Too many computations are waiting"),
    "too-many-streams": ProblemKind(429, "Too many open streams"),
    "upload-unknown": ProblemKind(404, "An upload named by the request is not here"),
    "upload-mismatch": ProblemKind(400, "The uploaded bytes do not have the digest in the path"),
    "uploads-full": ProblemKind(507, "The Spender's room for uploads is full"),
    "uploads-too-large": ProblemKind(413, "The uploads named by the request do not fit into the sandbox"),
    "rehearsal-off": ProblemKind(403, "The product allows no rehearsal"),
    "results-full": ProblemKind(507, "The Spender's room for results is full"),
    "disk-full": ProblemKind(503, "The node has no room for another result"),
    "unavailable": ProblemKind(503, "The node cannot know or act right now"),
    "broken": ProblemKind(503, "The node's operator must mend something"),
    "refused": ProblemKind(403, "Refused"),
}

CODE_PROBLEMS: Final = {
    "code-not-utf8": ProblemKind(400, "The script is not UTF-8"),
    "code-nul": ProblemKind(400, "The script holds a NUL"),
    "code-syntax": ProblemKind(400, "The script does not compile"),
    "code-too-complex": ProblemKind(400, "The script is too complex to check"),
    "code-import-refused": ProblemKind(403, "The script imports a refused module"),
    "code-import-missing": ProblemKind(400, "The script imports a module the environment lacks"),
    "code-not-approved": ProblemKind(403, "The Earner has not approved this script"),
    "code-refused": ProblemKind(403, "The Earner refused this script"),
    "code-unknown": ProblemKind(404, "No such script was handed in here"),
    "bad-product-id": ProblemKind(400, "Not a product id"),
    "bad-params-schema": ProblemKind(400, "Not a params schema that is understood here"),
    "note-too-long": ProblemKind(400, "The note is too long"),
    "too-many-submissions": ProblemKind(429, "Too many scripts wait for a decision"),
}

# Never sent by a node: the SDK raises these about a response. Their status is 0.
SDK_PROBLEMS: Final = {
    "bad-answer": ProblemKind(0, "The answer is not a result"),
    "bad-manifest": ProblemKind(0, "The manifest speaks of something else"),
    "bytes-mismatch": ProblemKind(0, "The bytes are not the ones in the manifest"),
    "bad-receipt": ProblemKind(0, "The receipt cannot be trusted"),
    "not-on-chain": ProblemKind(0, "The chain says something else"),
    "unsafe-artifact": ProblemKind(0, "An artifact cannot be kept safely"),
    "bad-usage": ProblemKind(0, "The client cannot be used like this"),
    "no-answer": ProblemKind(0, "The node did not answer"),
    "still-running": ProblemKind(0, "The computation has not ended yet"),
}

PROBLEM_KINDS: Final[dict[str, ProblemKind]] = {
    **BODY_PROBLEMS,
    **HTTP_PROBLEMS,
    **SIGNATURE_PROBLEMS,
    **LEASE_PROBLEMS,
    **JOB_PROBLEMS,
    **CODE_PROBLEMS,
    **SDK_PROBLEMS,
}
