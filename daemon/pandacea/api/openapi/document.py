"""OpenAPI 3.1 of the routes that are really served, from the descriptions on their handlers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import web

from pandacea.api.openapi import schemas
from pandacea.api.openapi.operation import JSON, Auth, Operation, find_operation, path_template
from pandacea.api.problems import MEDIA_TYPE
from pandacea_sdk.protocol import problems
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.problems import PROBLEM_KINDS
from pandacea_sdk.protocol.responses import Problem

# What any request may meet before its route, and what any signed one may.
_EVERYWHERE: Final = ("bad-request", "bad-target", "bad-host", "headers-too-large", "target-too-long", "request-timeout")
_PRIVATE: Final = frozenset({"internal-error", "unavailable", "broken", "too-many-connections", "shutting-down", "not-found"})
_WITH_BODY: Final = ("body-too-large", "content-encoding-refused")

_SECURITY: Final[dict[Auth, list[dict[str, list[str]]]]] = {
    Auth.PUBLIC: [],
    Auth.SIGNED: [{"erc8128": []}],
    Auth.SIGNED_OR_TOKEN: [{"erc8128": []}, {"jobToken": []}],
}

_ABOUT: Final = (
    "An Earner's node: run a script on leased data without seeing the data. Requests are signed (ERC-8128 over RFC 9421) with the key "
    "that made the lease; errors are RFC 9457 problems whose `code` is stable."
)


def list_routes(app: web.Application) -> dict[tuple[str, str], Operation | None]:
    """Return (method, path template) of every route an application serves, with the description of its handler."""
    found = {}
    for route in app.router.routes():
        resource = route.resource
        if resource is not None and route.method not in {"HEAD", "OPTIONS"}:
            found[route.method, path_template(resource.canonical)] = find_operation(route.handler)
    return found


def build_document(app: web.Application, version: str) -> JsonObject:
    """Build the OpenAPI document of an application's routes.

    Raises:
        LookupError: a handler is served that has no `@operation`.
    """
    served = list_routes(app)
    if missing := sorted(key for key, operation in served.items() if operation is None):
        raise LookupError(f"routes without @operation on their handler: {missing}")
    operations = [operation for operation in served.values() if operation is not None]
    paths: dict[str, JsonObject] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pandacea node", "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": _build_schemas(operations),
            "securitySchemes": {
                "erc8128": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Signature",
                    "description": "ERC-8128: Signature-Input and Signature (and Content-Digest with a body) made with the Spender's key.",
                },
                "jobToken": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Pandacea-Job-Token",
                    "description": "The token of a 202 answer: reads that one computation.",
                },
            },
        },
    }


def encode_document(document: JsonObject) -> bytes:
    """Encode the document as GET /openapi.json serves it."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _build_schemas(operations: Iterable[Operation]) -> JsonObject:
    """Return the schemas that operations refer to, by name."""
    found = set().union(*(schemas.referenced(answer) for operation in operations for answer in operation.answers.values()))
    named = {kind.__name__: schemas.object_schema(kind) for kind in sorted(found | {Problem}, key=lambda kind: str(kind.__name__))}
    return named | {"ExecuteRequest": schemas.execute_request_schema(), "CodeRequest": schemas.code_request_schema()}


def _describe(operation: Operation) -> JsonObject:
    responses = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    for status, codes in sorted(_codes(operation).items()):
        content = {MEDIA_TYPE: {"schema": schemas.problem_schema(sorted(codes))}}
        if str(status) in responses:
            responses[str(status)].setdefault("content", {}).update(content)
        else:
            responses[str(status)] = {"description": "; ".join(sorted(codes)), "content": content}
    described: JsonObject = {
        "operationId": f"{operation.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', operation.path)}",
        "summary": operation.summary,
        "security": _SECURITY[operation.auth],
        "responses": responses,
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.request is not None:
        described["requestBody"] = {"required": True, "content": operation.request}
    return described


def _codes(operation: Operation) -> dict[int, set[str]]:
    """Return the codes of every problem that the operation may answer with, by status."""
    signed: Iterable[str] = (*problems.SIGNATURE_PROBLEMS, "rate-limited") if operation.auth is not Auth.PUBLIC else ()
    every = {*operation.codes, *_EVERYWHERE, *_PRIVATE, *signed, *(_WITH_BODY if operation.request else ("body-not-allowed",))}
    if operation.auth is not Auth.SIGNED_OR_TOKEN:
        every.discard("job-token-invalid")
    by_status: dict[int, set[str]] = {}
    for code in every:
        by_status.setdefault(PROBLEM_KINDS[code].status, set()).add(code)
    return by_status


def _answer(answer: Any) -> JsonObject:
    if answer is None:
        return {"description": "Done."}
    if isinstance(answer, str):
        schemas_of_media = {JSON: {}, "application/ld+json": {"schema": {"type": "object"}}}
        media: JsonObject = schemas_of_media.get(answer, {"schema": {"type": "string"}})
        return {"description": answer, "content": {answer: media}}
    described = " ".join((answer.__doc__ or answer.__name__).split())
    return {"description": described, "content": {JSON: {"schema": schemas.schema_of(answer)}}}
