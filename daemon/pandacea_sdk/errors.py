"""Errors of the SDK, in classes by what the caller should do next. Every error has the node's stable `code`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pandacea_sdk.protocol import problems
from pandacea_sdk.protocol.json_types import JsonMapping
from pandacea_sdk.protocol.problems import ProtocolError


class PandaceaError(Exception):
    """Base class of the SDK's errors.

    `code`: stable, for programs; `detail`: a sentence for people; `status`: of the HTTP response, None when there was none;
    `pointer`: JSON pointer of the field at fault; `line`: of the script; `retry_after`: seconds;
    `request_id`: under which the Earner finds it in the node's log; `answer`: the node's answer, where one had come before a check of
    it failed or could not be made; `computation_id`: its computation.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        pointer: str | None = None,
        line: int | None = None,
        retry_after: int | None = None,
        request_id: str | None = None,
    ) -> None:
        """Keep the members of the node's problem."""
        super().__init__(detail if request_id is None else f"{detail} [{code}, request {request_id}]")
        self.code = code
        self.detail = detail
        self.status = status
        self.pointer = pointer
        self.line = line
        self.retry_after = retry_after
        self.request_id = request_id
        self.answer: JsonMapping | None = None
        self.computation_id: str | None = None


class UsageError(PandaceaError):
    """The client was set up or called wrongly: correct the call. Nothing was sent."""


class RequestError(PandaceaError):
    """The request is malformed, or names what is not there: change the request."""


class SignatureError(PandaceaError):
    """The node does not accept the signature: check key, clock and authority."""


class LeaseError(PandaceaError):
    """There is no usable lease: none approved yet, or its state on the chain does not allow this. `client.lease(id)` says why."""


class JobError(PandaceaError):
    """The computation has no result, or cannot be read or cancelled in its state."""


class CodeError(PandaceaError):
    """The script was refused before it ran; `line` says where."""


class NodeUnavailable(PandaceaError):
    """The node cannot answer now, or did not: try again after `retry_after` seconds."""


class NodeError(PandaceaError):
    """The node made an error, or the server that answered is not a node."""


class UntrustedResult(PandaceaError):
    """Bytes, manifest, receipt or chain contradict each other: keep the answer and ask the Earner."""


class StillRunning(NodeUnavailable):
    """The computation has not ended in time: wait for it later with `client.result(error.computation_id)`."""

    def __init__(self, computation_id: str, seconds: float) -> None:
        """`seconds`: how long the client has waited."""
        super().__init__(
            "still-running", f"The computation {computation_id} has not ended after {seconds:.0f} s; ask for its result later."
        )
        self.computation_id: str = computation_id


_GROUPS: Final[tuple[tuple[Mapping[str, problems.ProblemKind], type[PandaceaError]], ...]] = (
    (problems.BODY_PROBLEMS, RequestError),
    (problems.HTTP_PROBLEMS, RequestError),
    (problems.SIGNATURE_PROBLEMS, SignatureError),
    (problems.LEASE_PROBLEMS, LeaseError),
    (problems.JOB_PROBLEMS, JobError),
    (problems.CODE_PROBLEMS, CodeError),
    (problems.SDK_PROBLEMS, UntrustedResult),
)
_SINGLE: Final[dict[str, type[PandaceaError]]] = {
    "internal-error": NodeError,
    "no-answer": NodeUnavailable,
    "bad-usage": UsageError,
    "refused": RequestError,
    # Codes whose family says something else than what to do about them.
    "unknown-spender": LeaseError,  # a good signature, and no approved lease of its address yet
    "product-unknown": RequestError,
    "asset-outside-product": RequestError,
    "product-version-moved": RequestError,
    "idempotency-conflict": RequestError,
}


def error_class(code: str, status: int | None = None) -> type[PandaceaError]:
    """Choose the class of a code; for a code that only a newer node knows, the class that fits the status."""
    if code in _SINGLE:
        return _SINGLE[code]
    kind = problems.PROBLEM_KINDS.get(code)
    if (kind.status if kind else status) in {408, 429, 503, 507}:
        return NodeUnavailable
    for codes, cls in _GROUPS:
        if code in codes:
            return cls
    return NodeError if status is None or status >= 500 else RequestError


def error_from_problem(body: Any, status: int) -> PandaceaError:
    """Make the error for a problem+json response, or a NodeError where the body is not a problem. No member is trusted to have its type."""
    if not isinstance(body, Mapping) or not isinstance(body.get("code"), str) or not isinstance(body.get("detail"), str):
        return NodeError("bad-answer", f"The answer (status {status}) is not problem+json; is this a Pandacea node?", status=status)

    def member(name: str, kind: type) -> Any:
        value = body.get(name)
        return value if isinstance(value, kind) and not isinstance(value, bool) else None

    return error_class(body["code"], status)(
        body["code"],
        body["detail"],
        status=status,
        pointer=member("pointer", str),
        line=member("line", int),
        retry_after=member("retry_after", int),
        request_id=member("request_id", str),
    )


def error_from_protocol(error: ProtocolError) -> PandaceaError:
    """Make the error for a message that breaks the protocol, the SDK's own or the node's."""
    return error_class(error.code)(error.code, error.detail, pointer=error.pointer)


def usage_error(detail: str) -> UsageError:
    """Make a UsageError (`bad-usage`) with this sentence."""
    return UsageError("bad-usage", detail)
