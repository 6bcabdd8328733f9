"""The JSON shapes of a node's responses, for the node that writes them and the SDK that reads them."""

from __future__ import annotations

import base64
from typing import Final, Literal, NotRequired, TypedDict

from pandacea_sdk.protocol.json_types import JsonObject

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
    """Why a computation failed. `type` is a value of the node's `Failure`; the optional members describe the script's own exception."""

    type: str
    message: str
    exception: NotRequired[str]
    line: NotRequired[int | None]
    exception_message: NotRequired[str]
    exit_status: NotRequired[int | None]


class Results(TypedDict):
    """What the script left: its output as text (bytes that are not UTF-8 are replaced) and its artifacts in base64."""

    output: str
    output_base64: NotRequired[str]
    """The exact bytes, present only where `output` cannot carry them."""
    artifacts: NotRequired[dict[str, str]]
    """Absent where they were not asked for (`?artifacts=none`)."""
    artifact_sizes: NotRequired[dict[str, int]]
    """Present instead: bytes of each. Fetch them at `artifacts/{name}`."""


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
    manifest: NotRequired[JsonObject]
    """Comes with `result_hash` and `receipt`; a rehearsal has none of them, as nobody signs it."""
    result_hash: NotRequired[str]
    receipt: NotRequired[ReceiptJson]
    mode: NotRequired[Literal["mock"]]
    """Only in the response to a rehearsal."""
    error: NotRequired[ComputationError]


class StatusAnswer(TypedDict):
    """200 of GET results: the computation's state; has the members of ExecuteAnswer once it has ended with a result."""

    computation_id: str
    status: Status
    reason: NotRequired[str]
    success: NotRequired[bool]
    results: NotRequired[Results]
    manifest: NotRequired[JsonObject]
    result_hash: NotRequired[str]
    receipt: NotRequired[ReceiptJson]
    mode: NotRequired[Literal["mock"]]
    error: NotRequired[ComputationError]


class Accepted(TypedDict):
    """202 of POST execute: the computation waits or runs; poll `location` with the job token."""

    computation_id: str
    status: Status
    location: str
    job_token: str


class WellKnown(TypedDict):
    """200 of GET /.well-known/pandacea: who the node is. `signature` is EIP-191 by `signer` over the RFC 8785 JSON of the rest."""

    chain_id: int
    contract: str
    earner: str
    authorities: list[str]
    version: str
    environment: NotRequired[JsonObject]
    signer: NotRequired[str]
    signature: NotRequired[str]


class LeaseAnswer(TypedDict):
    """200 of GET leases: how this node sees a lease of the caller, and whether it would accept a computation now."""

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
    """200 of GET products: one page of the catalogue."""

    data: list[ProductShort]
    nextCursor: str


class ProductAnswer(ProductShort):
    """200 of GET products/{id}: the signed document, and the environment in which scripts run."""

    dataProductId: str
    description: str
    rules: JsonObject
    assets: list[JsonObject]
    limits: JsonObject
    environment: JsonObject | None
    document: JsonObject
    signature: str


class CodeAnswer(TypedDict):
    """A script submitted for approval: its state, and the Earner's reason when it was refused."""

    code_id: str
    product_id: str
    code_sha256: str
    status: str
    reason: NotRequired[str]
    location: NotRequired[str]


class UploadAnswer(TypedDict):
    """200 of GET uploads: an upload of the caller. `kept_until`: Unix seconds."""

    sha256: str
    size: int
    kept_until: int


class Live(TypedDict):
    """200 of GET healthz: the process answers."""

    live: bool


class Ready(TypedDict):
    """200 or 503 of GET readyz; each part of the node adds its own member."""

    ready: bool


def output_members(output: bytes) -> dict[str, str]:
    """Build the member `output` of `Results` and, where it would lose bytes, `output_base64`."""
    text = output.decode("utf-8", "replace")
    if text.encode() == output:
        return {"output": text}
    return {"output": text, "output_base64": base64.b64encode(output).decode()}
