"""Every operation of the HTTP interface as data: what it takes, what it answers, which problems it may raise."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pandacea.api import schemas
from pandacea_sdk.protocol import problems, responses
from pandacea_sdk.protocol.ids import HASH32, SHA256_HEX


class Auth(StrEnum):
    """Who may call: nobody is asked, a signed request, or a signed request or job token."""

    PUBLIC = "public"
    SIGNED = "signed"
    SIGNED_OR_TOKEN = "signed-or-token"  # noqa: S105  # a kind of authentication


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route. `answers`: status -> a TypedDict, a media type, or None for an empty body."""

    method: str
    path: str
    summary: str
    auth: Auth
    answers: dict[int, Any]
    codes: tuple[str, ...] = ()
    request: dict[str, Any] | None = None
    parameters: tuple[dict[str, Any], ...] = ()
    headers: tuple[dict[str, Any], ...] = field(default=())


RESULTS: Final = "/api/v1/privacy/results/{computation_id}"
JSON_BODY: Final = "application/json"
BYTES: Final = "application/octet-stream"
EVENTS: Final = "text/event-stream"

_HASH: Final = {"type": "string", "pattern": f"^{HASH32.pattern}$"}
_READING: Final = ("computation-unknown", "lease-cancelled", "lease-disputed", "lease-refunded", "lease-doubted", "approval-gone")
_RESULT: Final = (
    "result-held",
    "result-refused",
    "result-expired",
    "computation-failed",
    "computation-cancelled",
    "computation-interrupted",
)


def _path(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _header(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema or {"type": "string"}}


_ID: Final = _path("computation_id", _HASH)

OPERATIONS: Final = (
    Operation(
        "POST",
        "/api/v1/privacy/execute",
        "Run a script on leased data",
        Auth.SIGNED,
        {200: responses.ExecuteAnswer, 202: responses.Accepted},
        (
            *problems.BODY_PROBLEMS,
            *problems.LEASE_PROBLEMS,
            *problems.CODE_PROBLEMS,
            *_RESULT,
            "idempotency-conflict",
            "too-many-jobs",
            "upload-unknown",
            "uploads-too-large",
            "too-many-streams",
            "rehearsal-off",
            "results-full",
            "disk-full",
            "unsupported-media-type",
        ),
        {JSON_BODY: {"schema": {"$ref": "#/components/schemas/ExecuteRequest"}}},
        (
            _header("Prefer", "`respond-async` (RFC 7240): answer 202 at once, with a place to ask for the result."),
            _header("Idempotency-Key", "One computation for all requests of this Spender and lease with this key and body."),
        ),
    ),
    Operation(
        "GET",
        RESULTS,
        "Where a computation stands, with its result once it has ended",
        Auth.SIGNED_OR_TOKEN,
        {200: responses.StatusAnswer},
        (*_READING, *_RESULT, "bad-parameter", "too-many-streams"),
        parameters=(
            _ID,
            {
                "name": "wait",
                "in": "query",
                "description": "Answer when the computation ends, at most so many seconds later.",
                "schema": {"type": "integer", "minimum": 0, "maximum": 30},
            },
        ),
    ),
    Operation(
        "DELETE",
        RESULTS,
        "Cancel a computation that waits or runs",
        Auth.SIGNED,
        {204: None},
        (*_READING, "not-cancellable"),
        parameters=(_ID,),
    ),
    Operation(
        "GET",
        RESULTS + "/artifacts/{name}",
        "An artifact's raw bytes; Range (RFC 9110) is served",
        Auth.SIGNED_OR_TOKEN,
        {200: BYTES, 206: BYTES},
        (*_READING, *_RESULT, "artifact-unknown", "range-not-satisfiable"),
        parameters=(_ID, _path("name", {"type": "string"}), _header("Range", "One range of bytes.")),
    ),
    Operation(
        "GET",
        RESULTS + "/events",
        "Server-sent events: states, progress, and output as the product allows",
        Auth.SIGNED_OR_TOKEN,
        {200: EVENTS},
        (*_READING, "too-many-streams", "bad-parameter"),
        parameters=(_ID, _header("Last-Event-ID", "Go on after this event.")),
    ),
    Operation(
        "PUT",
        "/api/v1/privacy/uploads/{sha256}",
        "Put what a script needs beyond 100 KB; requests name it by its sha-256",
        Auth.SIGNED,
        {204: None},
        ("bad-upload", "upload-mismatch", "uploads-full", "disk-full"),
        {BYTES: {"schema": {"type": "string", "format": "binary"}}},
        (_path("sha256", {"type": "string", "pattern": f"^{SHA256_HEX.pattern}$"}),),
    ),
    Operation(
        "POST",
        "/api/v1/privacy/code",
        "Hand in a script for the Earner's approval, before paying for a lease",
        Auth.SIGNED,
        {202: responses.CodeAnswer},
        (
            *problems.BODY_PROBLEMS,
            *problems.CODE_PROBLEMS,
            "product-unknown",
            "asset-outside-product",
            "unsupported-media-type",
        ),
        {JSON_BODY: {"schema": {"$ref": "#/components/schemas/CodeRequest"}}},
    ),
    Operation(
        "GET",
        "/api/v1/privacy/code/{code_id}",
        "Where a handed-in script stands, and the reason of a refusal",
        Auth.SIGNED,
        {200: responses.CodeAnswer},
        ("code-unknown",),
        parameters=(_path("code_id", _HASH),),
    ),
    Operation("GET", "/api/v1/products", "What is on offer", Auth.PUBLIC, {200: responses.ProductList}),
    Operation(
        "GET",
        "/api/v1/products/{product_id}",
        "One product: schema, mock rows, price, rules, limits, environment, signed version",
        Auth.PUBLIC,
        {200: responses.ProductAnswer},
        ("product-unknown",),
        parameters=(_path("product_id", {"type": "string"}),),
    ),
    Operation(
        "GET",
        "/api/v1/products/{product_id}/croissant.json",
        "The product's mock files as Croissant (JSON-LD)",
        Auth.PUBLIC,
        {200: "application/ld+json"},
        ("product-unknown",),
        parameters=(_path("product_id", {"type": "string"}),),
    ),
    Operation(
        "GET",
        "/api/v1/products/{product_id}/assets/{asset_id}/mock.csv",
        "An asset's mock rows",
        Auth.PUBLIC,
        {200: "text/csv"},
        ("product-unknown",),
        parameters=(_path("product_id", {"type": "string"}), _path("asset_id", {"type": "string"})),
    ),
    Operation("GET", "/products", "What is on offer, for people", Auth.PUBLIC, {200: "text/html"}),
    Operation(
        "GET",
        "/products/{product_id}",
        "One product, for people",
        Auth.PUBLIC,
        {200: "text/html"},
        ("product-unknown",),
        parameters=(_path("product_id", {"type": "string"}),),
    ),
    Operation(
        "GET",
        "/api/v1/leases/{lease_id}",
        "How this node sees a lease of the caller, and why it would refuse",
        Auth.SIGNED,
        {200: responses.LeaseAnswer},
        ("lease-unknown", "bad-lease-id"),
        parameters=(_path("lease_id", _HASH),),
    ),
    Operation("GET", "/.well-known/pandacea", "Who this node is; signed", Auth.PUBLIC, {200: responses.WellKnown}),
    Operation("GET", "/openapi.json", "This document", Auth.PUBLIC, {200: JSON_BODY}),
    Operation("GET", "/docs", "This document for people", Auth.PUBLIC, {200: "text/html"}),
    Operation("GET", "/healthz", "The event loop answers", Auth.PUBLIC, {200: responses.Live}),
    Operation(
        "GET",
        "/readyz",
        "Whether leases may be believed and a box can be made",
        Auth.PUBLIC,
        {200: responses.Ready, 503: responses.Ready},
    ),
)


def components() -> dict[str, Any]:
    """The schemas that operations refer to."""
    found = set().union(*(schemas.referenced(answer) for operation in OPERATIONS for answer in operation.answers.values()))
    named = {
        kind.__name__: schemas.object_schema(kind)
        for kind in sorted(found | {responses.Problem}, key=lambda kind: str(kind.__name__))
    }
    return named | {"ExecuteRequest": schemas.execute_request_schema(), "CodeRequest": schemas.code_request_schema()}
