"""What a node answers: the shapes of its JSON, shared by the node that writes them and the SDK that reads them."""

from __future__ import annotations

import base64
from typing import Any, Final, Literal, NotRequired, TypedDict

Status = Literal["pending", "running", "held", "completed", "failed", "cancelled"]
ENDED: Final = frozenset({"completed", "failed", "cancelled"})


class Problem(TypedDict):
    """RFC 9457 problem details, with our `code`, request id and, for a field, its JSON pointer."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    pointer: NotRequired[str]
    line: NotRequired[int]
    retry_after: NotRequired[int]


class ComputationError(TypedDict):
    """Why a computation failed. `type` is a value of the node's `Failure`; the last three speak of the script's own exception."""

    type: str
    message: str
    exception: NotRequired[str]
    line: NotRequired[int | None]
    exception_message: NotRequired[str]
    exit_status: NotRequired[int | None]


class Results(TypedDict):
    """Everything the script left: its output as text (bytes that are no UTF-8 replaced) and its artifacts in base64."""

    output: str
    output_base64: NotRequired[str]
    """The exact bytes, present only when `output` could not carry them."""
    artifacts: dict[str, str]


class ReceiptJson(TypedDict):
    """An EIP-712 receipt (see `receipt`). Hashes are `0x` + 64 hex digits; the signature is `0x` + 130."""

    chain_id: int
    contract: str
    lease_id: str
    computation_id: str
    request_hash: str
    product_version: str
    result_hash: str
    signer: str
    signature: str


class ExecuteAnswer(TypedDict):
    """200 of POST execute, and of GET results once the computation has ended and may be read."""

    success: bool
    computation_id: str
    results: Results
    manifest: NotRequired[dict[str, Any]]
    """With `result_hash` and `receipt`: in every answer but a rehearsal's, which nobody signs."""
    result_hash: NotRequired[str]
    receipt: NotRequired[ReceiptJson]
    mode: NotRequired[Literal["mock"]]
    """Only in a rehearsal's answer."""
    error: NotRequired[ComputationError]


class StatusAnswer(TypedDict):
    """200 of GET results: where the computation stands; with an ExecuteAnswer's members once it has ended with a result."""

    computation_id: str
    status: Status
    reason: NotRequired[str]
    success: NotRequired[bool]
    results: NotRequired[Results]
    manifest: NotRequired[dict[str, Any]]
    result_hash: NotRequired[str]
    receipt: NotRequired[ReceiptJson]
    mode: NotRequired[Literal["mock"]]
    error: NotRequired[ComputationError]


class Accepted(TypedDict):
    """202 of POST execute: poll `location` with the job token."""

    computation_id: str
    status: Status
    location: str
    job_token: str


class WellKnown(TypedDict):
    """GET /.well-known/pandacea: who the node is. `signature` is EIP-191 by `signer` over the RFC 8785 JSON of the rest."""

    chain_id: int
    contract: str
    earner: str
    authorities: list[str]
    version: str
    environment: NotRequired[dict[str, Any]]
    signer: NotRequired[str]
    signature: NotRequired[str]


class LeaseAnswer(TypedDict):
    """GET leases: how this node sees a lease of the caller, and whether a computation would be accepted now."""

    lease_id: str
    status: str
    earner: str
    data_product_id: str | None
    expires_at: int | None
    max_computations: int
    used: int
    reserved: int
    failed_runs: int
    approved_block: int | None
    approval: str
    may_run: bool
    reason: str | None


class ProductShort(TypedDict):
    """A product in the list. `priceWei` is a decimal string."""

    productId: str
    name: str
    dataType: str
    keywords: list[str]
    priceWei: str
    version: str


class ProductList(TypedDict):
    """GET products."""

    data: list[ProductShort]
    nextCursor: str


class ProductAnswer(ProductShort):
    """GET products/{id}: the signed document and what its scripts run in."""

    dataProductId: str
    description: str
    rules: dict[str, Any]
    assets: list[dict[str, Any]]
    limits: dict[str, Any]
    environment: dict[str, Any] | None
    document: dict[str, Any]
    signature: str


class CodeAnswer(TypedDict):
    """A script handed in for approval: where it stands, and the Earner's reason when it was refused."""

    code_id: str
    product_id: str
    code_sha256: str
    status: str
    reason: NotRequired[str]
    location: NotRequired[str]


class Live(TypedDict):
    """GET healthz."""

    live: bool


class Ready(TypedDict):
    """GET readyz; each part adds its own member."""

    ready: bool


def output_members(output: bytes) -> dict[str, str]:
    """The `output` (and, when bytes would be lost, `output_base64`) members of `Results`."""
    text = output.decode("utf-8", "replace")
    if text.encode() == output:
        return {"output": text}
    return {"output": text, "output_base64": base64.b64encode(output).decode()}
