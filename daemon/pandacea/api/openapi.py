"""OpenAPI 3.1 of the routes that are really served, and the same as a page that needs no network and runs no script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any, Final

from aiohttp import web

from pandacea.api import schemas
from pandacea.api.operations import JSON_BODY, OPERATIONS, Auth, Operation, components
from pandacea.api.problems import MEDIA_TYPE
from pandacea_sdk.protocol import problems
from pandacea_sdk.protocol.problems import PROBLEM_KINDS

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


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    """(method, path template) of every route; patterns inside templates are left out, as OpenAPI has none."""
    found = set()
    for route in app.router.routes():
        resource = route.resource
        if resource is not None and route.method not in {"HEAD", "OPTIONS"}:
            found.add((route.method, re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", resource.canonical)))
    return found


def document(app: web.Application, version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of an application's routes.

    Raises:
        LookupError: a route is served that `OPERATIONS` does not describe.
    """
    served = routes_of(app)
    known = {(operation.method, operation.path): operation for operation in OPERATIONS}
    unknown = served - known.keys()
    if unknown:
        raise LookupError(f"routes without a description in api/operations.py: {sorted(unknown)}")
    paths: dict[str, dict[str, Any]] = {}
    for key, operation in known.items():
        if key in served:
            paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pandacea node", "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": components(),
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


def document_bytes(app: web.Application, version: str) -> bytes:
    """The document as GET /openapi.json serves it."""
    return json.dumps(document(app, version), separators=(",", ":"), ensure_ascii=False).encode()


def _operation(operation: Operation) -> dict[str, Any]:
    responses = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    for status, codes in sorted(_codes(operation).items()):
        content = {MEDIA_TYPE: {"schema": schemas.problem_schema(sorted(codes))}}
        if str(status) in responses:
            responses[str(status)].setdefault("content", {}).update(content)
        else:
            responses[str(status)] = {"description": "; ".join(sorted(codes)), "content": content}
    described: dict[str, Any] = {
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
    """Status -> the codes of every problem that the operation may answer with."""
    signed: Iterable[str] = (*problems.SIGNATURE_PROBLEMS, "rate-limited") if operation.auth is not Auth.PUBLIC else ()
    every = {*operation.codes, *_EVERYWHERE, *_PRIVATE, *signed, *(_WITH_BODY if operation.request else ("body-not-allowed",))}
    if operation.auth is not Auth.SIGNED_OR_TOKEN:
        every.discard("job-token-invalid")
    by_status: dict[int, set[str]] = {}
    for code in every:
        by_status.setdefault(PROBLEM_KINDS[code].status, set()).add(code)
    return by_status


def _answer(answer: Any) -> dict[str, Any]:
    if answer is None:
        return {"description": "Done."}
    if isinstance(answer, str):
        schemas_of_media = {JSON_BODY: {}, "application/ld+json": {"schema": {"type": "object"}}}
        media: dict[str, Any] = schemas_of_media.get(answer, {"schema": {"type": "string"}})
        return {"description": answer, "content": {answer: media}}
    described = " ".join((answer.__doc__ or answer.__name__).split())
    return {"description": described, "content": {JSON_BODY: {"schema": schemas.schema_of(answer)}}}


# ------------------------------------------------------------------ the page

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "h2{margin-top:2.5rem;border-top:1px solid #ccc;padding-top:1rem}code,pre{font:14px/1.4 ui-monospace,monospace}"
    "pre{background:#f4f4f4;padding:.8rem;overflow:auto}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;vertical-align:top;padding:.2rem .6rem;border-bottom:1px solid #ddd}"
    "@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#222}td,th,h2{border-color:#444}}"
)
PAGE_POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)
"""The page's Content-Security-Policy: its own style and nothing else."""


def page(described: dict[str, Any]) -> bytes:
    """GET /docs: the document as one HTML page, readable offline."""
    info = described["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_code(info['description'])}</p>",
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts.append(_section(method, path, operation))
    parts.append("<h2>Shapes</h2>")
    for name, schema in described["components"]["schemas"].items():
        shown = escape(json.dumps(schema, indent=2, ensure_ascii=False))
        parts.append(f"<h3 id={escape(name)}>{escape(name)}</h3><pre>{shown}</pre>")
    return "\n".join(parts).encode()


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    auth = " or ".join(name for scheme in operation["security"] for name in scheme) or "public"
    lines = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{_code(operation['summary'])} <em>({escape(auth)})</em></p>"]
    if "parameters" in operation:
        rows = "".join(
            f"<tr><td><code>{escape(item['name'])}</code><td>{escape(item['in'])}<td>{_code(item.get('description', ''))}"
            for item in operation["parameters"]
        )
        lines.append(f"<table><tr><th>parameter<th>in<th>{rows}</table>")
    rows = "".join(
        f"<tr><td>{escape(status)}<td>{_contents(response)}" for status, response in sorted(operation["responses"].items())
    )
    lines.append(f"<table><tr><th>status<th>answer{rows}</table>")
    return "".join(lines)


def _contents(response: dict[str, Any]) -> str:
    shown = []
    for media, content in response.get("content", {}).items():
        schema = content.get("schema", {})
        if media == MEDIA_TYPE:
            codes = schema["allOf"][1]["properties"]["code"]["enum"]
            shown.append("<br>".join(f"<code>{escape(code)}</code> {escape(PROBLEM_KINDS[code].title)}" for code in codes))
        elif "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            shown.append(f"<a href=#{escape(name)}>{escape(name)}</a>: {_code(response['description'])}")
        else:
            shown.append(f"<code>{escape(media)}</code>")
    return "<br>".join(shown) or _code(response["description"])


def _code(text: str) -> str:
    """Escaped text, with `code` between backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
