"""Errors over HTTP: RFC 9457 problem+json with a stable `code`, its status from the protocol's one table."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from pandacea.errors import Broken, DaemonError, Unavailable
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.problems import PROBLEM_KINDS, ProblemKind, ProtocolError
from pandacea_sdk.protocol.signing import ACCEPT_SIGNATURE

MEDIA_TYPE: Final = "application/problem+json"
INTERNAL_ERROR_DETAIL: Final = "The node made an error; its operator can find the request id in the log."

_BY_CLASS: Final = {Unavailable: PROBLEM_KINDS["unavailable"], Broken: PROBLEM_KINDS["broken"]}
_BY_STATUS: Final = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large", 416: "range-not-satisfiable"}
# What failed in the node is for its operator; others learn only that something did.
_HIDDEN: Final = "The node cannot serve this now; its operator can read why in its log. Try again later."


def problem_body(
    code: str, detail: str, request_id: str, kind: ProblemKind, *, pointer: str | None = None, more: JsonMapping | None = None
) -> JsonObject:
    """Return the members of a problem in a stable order; `more` adds members such as `line` and `retry_after`."""
    body: JsonObject = {
        "type": f"urn:pandacea:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    if pointer is not None:
        body["pointer"] = pointer
    return body | dict(more or {})


def problem_response(
    code: str,
    detail: str,
    request_id: str,
    *,
    kind: ProblemKind | None = None,
    pointer: str | None = None,
    retry_after: int | None = None,
    line: int | None = None,
) -> web.Response:
    """Return a problem as a response. `kind` is for codes that are not in the table; `retry_after` is in seconds."""
    known = kind or PROBLEM_KINDS[code]
    more = {name: value for name, value in (("line", line), ("retry_after", retry_after)) if value is not None}
    headers = {"X-Request-Id": request_id}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if known.status == 401:
        headers["WWW-Authenticate"] = "Signature"
        headers["Accept-Signature"] = ACCEPT_SIGNATURE
    body = problem_body(code, detail, request_id, known, pointer=pointer, more=more)
    return web.Response(body=msgspec.json.encode(body), status=known.status, content_type=MEDIA_TYPE, headers=headers)


def error_response(error: ProtocolError | DaemonError | web.HTTPException, request_id: str) -> web.Response:
    """Return the response for an error that was raised on purpose."""
    if isinstance(error, ProtocolError):
        return problem_response(error.code, error.detail, request_id, pointer=error.pointer, retry_after=_retry_after(error.code))
    if isinstance(error, DaemonError):
        kind = PROBLEM_KINDS.get(error.code) or next(
            (kind for cls, kind in _BY_CLASS.items() if isinstance(error, cls)), PROBLEM_KINDS["refused"]
        )
        retry_after = error.retry_after if isinstance(error, Unavailable) else _retry_after(error.code)
        detail = _HIDDEN if isinstance(error, Broken) else error.detail
        line = error.context.get("line")
        return problem_response(
            error.code, detail, request_id, kind=kind, retry_after=retry_after, line=line if isinstance(line, int) else None
        )
    return _from_aiohttp(error, request_id)


def _from_aiohttp(error: web.HTTPException, request_id: str) -> web.Response:
    """Return the problem for what aiohttp itself refuses: an unknown route, a method, a body's size, a range."""
    code = _BY_STATUS.get(error.status, "bad-request" if error.status < 500 else "internal-error")
    details = {
        "not-found": "There is nothing at this path; /openapi.json lists the routes.",
        "method-not-allowed": f"This path takes {error.headers.get('Allow', 'other methods')}.",
        "body-too-large": "The body is larger than this route takes.",
        "range-not-satisfiable": "The range lies outside the file; Content-Range tells its size in bytes.",
    }
    response = problem_response(
        code, details.get(code, "The request cannot be read; /openapi.json says what is taken."), request_id
    )
    for name in ("Allow", "Content-Range"):
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response


def _retry_after(code: str) -> int | None:
    """Return the Retry-After, in seconds, of codes that pass by themselves."""
    kind = PROBLEM_KINDS.get(code)
    return 5 if kind is not None and kind.status in {429, 503, 507} else None
