"""The description of an operation, written as a decorator on its handler: what it takes, what it answers, which problems it raises."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from aiohttp.typedefs import Handler

from pandacea_sdk.protocol.ids import HASH32
from pandacea_sdk.protocol.json_types import JsonObject

H = TypeVar("H", bound=Handler)

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
EVENTS: Final = "text/event-stream"
HTML: Final = "text/html"

HASH_SCHEMA: Final = {"type": "string", "pattern": f"^{HASH32.pattern}$"}
READ_PROBLEMS: Final = (
    "computation-unknown",
    "lease-cancelled",
    "lease-disputed",
    "lease-refunded",
    "lease-doubted",
    "approval-gone",
)
"""Codes of every route that reads one computation."""
RESULT_PROBLEMS: Final = (
    "result-held",
    "result-refused",
    "result-expired",
    "computation-failed",
    "computation-cancelled",
    "computation-interrupted",
)
"""Codes of a computation that has no result to hand out."""

_ATTRIBUTE: Final = "pandacea_operation"
_PATTERN: Final = re.compile(r"\{(\w+):[^{}]*\}")


class Auth(StrEnum):
    """Who may call: anybody, the signer of a request, or also the holder of a job token."""

    PUBLIC = "public"
    SIGNED = "signed"
    SIGNED_OR_TOKEN = "signed-or-token"  # noqa: S105  # a kind of authentication, not a secret


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route."""

    method: str
    route: str
    """Path as aiohttp takes it: a parameter may have a pattern, `{name:.+}`."""
    summary: str
    auth: Auth
    answers: dict[int, object]
    """Status -> a TypedDict of the protocol, a media type, or None for an empty body."""
    codes: tuple[str, ...] = ()
    """Problem codes beyond those that every route may answer."""
    request: JsonObject | None = None
    """Media type -> content of the request body; None: it takes no body."""
    parameters: tuple[JsonObject, ...] = ()

    @property
    def path(self) -> str:
        """The path template as OpenAPI writes it: without patterns."""
        return path_template(self.route)


def operation(
    method: str,
    route: str,
    summary: str,
    auth: Auth,
    answers: dict[int, object],
    codes: tuple[str, ...] = (),
    *,
    request: JsonObject | None = None,
    parameters: tuple[JsonObject, ...] = (),
) -> Callable[[H], H]:
    """Describe a handler; `routes.add_routes` serves it there, and `openapi.document` publishes the description."""
    described = Operation(method, route, summary, auth, answers, codes, request, parameters)

    def attach(handler: H) -> H:
        setattr(handler, _ATTRIBUTE, described)
        return handler

    return attach


def find_operation(handler: object) -> Operation | None:
    """Return the description of a handler; None: it has none."""
    found = getattr(handler, _ATTRIBUTE, None)
    return found if isinstance(found, Operation) else None


def path_template(route: str) -> str:
    """Return a route's path without the patterns of its parameters, which OpenAPI does not have."""
    return _PATTERN.sub(r"{\1}", route)


def path_parameter(name: str, schema: JsonObject | None = None) -> JsonObject:
    """Describe a parameter of the path; a string unless `schema` says otherwise."""
    return {"name": name, "in": "path", "required": True, "schema": schema or {"type": "string"}}


def header_parameter(name: str, description: str) -> JsonObject:
    """Describe an optional header."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def json_request(schema: str) -> JsonObject:
    """Describe a JSON body by the name of its schema in the document's components."""
    return {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


COMPUTATION_ID: Final = path_parameter("computation_id", HASH_SCHEMA)
