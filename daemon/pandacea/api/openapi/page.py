"""The OpenAPI document as one HTML page: it needs no network and runs no script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from typing import Final

from pandacea.api.problems import MEDIA_TYPE
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.problems import PROBLEM_KINDS

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


def render_page(document: JsonObject) -> bytes:
    """Render the document for GET /docs."""
    info = document["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_code(info['description'])}</p>",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(_section(method, path, operation))
    parts.append("<h2>Shapes</h2>")
    for name, schema in document["components"]["schemas"].items():
        shown = escape(json.dumps(schema, indent=2, ensure_ascii=False))
        parts.append(f"<h3 id={escape(name)}>{escape(name)}</h3><pre>{shown}</pre>")
    return "\n".join(parts).encode()


def _section(method: str, path: str, operation: JsonObject) -> str:
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


def _contents(response: JsonObject) -> str:
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
    """Escape text and mark what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
