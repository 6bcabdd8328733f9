"""Product pages for people: HTML without script, which loads nothing; every text of a product is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from html import escape
from typing import Final

from pandacea.domain.charge import FAILED_RUNS_FREE, FREE_OUTPUT_BYTES
from pandacea.domain.printable import printable
from pandacea_sdk.protocol.json_types import JsonMapping

_POLICY: Final = {
    "approved-code": "Only scripts that the Earner has read and approved run on this data.",
    "any-code": "Any script runs on this data, within the limits below. What it prints and saves leaves the Earner's machine.",
}
_RELEASE: Final = {
    "hold": "The Earner looks at each result before releasing it.",
    "auto": "Results are released at once.",
}
_LIVE: Final = {
    "none": "Nothing is shown while a script runs.",
    "progress": "While a script runs, its progress is shown as numbers.",
    "full": "A script's output is shown while it runs.",
}
_REHEARSAL: Final = {
    "lease": "Lease holders may try scripts on the mock rows, uncharged.",
    "off": "There are no rehearsals on mock rows.",
}

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --bg: #ffffff; --panel: #f6f8fa; --mark: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --line: #333b44; --bg: #11151a; --panel: #1a2027; --mark: #79b8ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
header p.kicker { margin: 0; color: var(--soft); font-size: .875rem; }
h1 { margin: .15rem 0 .5rem; font-size: 2rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: var(--mark); }
code, pre { font: .875em/1.5 ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem; overflow-x: auto; }
.soft { color: var(--soft); }
.tags { padding: 0; margin: .75rem 0; list-style: none; display: flex; flex-wrap: wrap; gap: .4rem; }
.tags li { background: var(--panel); border: 1px solid var(--line); border-radius: 1rem; padding: 0 .7rem; font-size: .8125rem; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
dl.facts div { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem; }
dl.facts dt { color: var(--soft); font-size: .8125rem; }
dl.facts dd { margin: 0; font-size: 1.125rem; font-weight: 600; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
th, td { text-align: left; padding: .45rem .75rem; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
thead th { background: var(--panel); font-size: .8125rem; color: var(--soft); font-weight: 600; white-space: nowrap; }
td.name { font-weight: 600; overflow-wrap: anywhere; min-width: 8rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
.label { border: 1px solid var(--mark); color: var(--mark); border-radius: 1rem; padding: 0 .5rem; font-size: .75rem; font-weight: 400; }
footer { margin-top: 3rem; color: var(--soft); font-size: .875rem; }
@media print { main { max-width: none; } .scroll { overflow: visible; } }
"""

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'"
)
"""The page's Content-Security-Policy: its own style and nothing else."""


def render_products_page(documents: Sequence[JsonMapping], earner: str) -> bytes:
    """Render the list of products on offer."""
    rows = "".join(
        f'<tr><td class="name"><a href="/products/{_text(one["product_id"])}">{_text(one["name"])}</a></td>'
        f"<td>{_text(one['description'], 300)}</td><td>{len(one['assets'])}</td>"
        f'<td class="number">{_price(one["price_wei"])}</td></tr>'
        for one in documents
    )
    table = (
        f'<div class="scroll"><table><thead><tr><th>Product</th><th>What it is</th><th>Tables</th>'
        f'<th class="number">Price of a lease</th></tr></thead><tbody>{rows}</tbody></table></div>'
        if documents
        else "<p>Nothing is on offer here now.</p>"
    )
    body = f'<header><p class="kicker">Earner <code>{_text(earner)}</code></p><h1>Products</h1></header>{table}'
    return _page("Products", body)


def render_product_page(
    document: JsonMapping,
    *,
    version: str,
    signature: str,
    product_hash: str,
    earner: str,
    limits: JsonMapping,
    environment: JsonMapping | None,
) -> bytes:
    """Render one product: its tables, its rules, and how to use it."""
    tags = "".join(f"<li>{_text(word)}</li>" for word in document["keywords"])
    rules = document["rules"]
    parts = [
        (
            f'<header><p class="kicker"><a href="/products">Products</a> · {_text(document["data_type"])}</p>'
            f"<h1>{_text(document['name'])}</h1><p>{_text(document['description'], 4000)}</p>"
            + (f'<ul class="tags">{tags}</ul>' if tags else "")
            + "</header>"
        ),
        _facts(
            [
                ("Price of a lease", _price(document["price_wei"])),
                ("Tables", str(len(document["assets"]))),
                ("Code", "approved only" if rules["policy"] == "approved-code" else "any"),
                ("Results", "held for the Earner" if rules["release"] == "hold" else "released at once"),
            ]
        ),
        *(_asset(document["product_id"], asset) for asset in document["assets"]),
        "<h2>Rules</h2>" + _sentences(rules),
        "<h2>How to use it</h2>" + _usage(document, product_hash, earner),
        "<h2>What a script runs in</h2>" + _limits(limits) + _environment(environment),
        f"<footer><p>Version <code>{_text(version)}</code>, signed by the Earner <code>{_text(earner)}</code>: "
        f"<code>{_text(signature)}</code>.</p><p>Machine-readable: "
        f'<a href="/api/v1/products/{_text(document["product_id"])}">JSON</a>, '
        f'<a href="/api/v1/products/{_text(document["product_id"])}/croissant.json">Croissant</a> (of the mock files).</p></footer>',
    ]
    return _page(str(document["name"]), "".join(parts))


def _asset(product_id: str, asset: JsonMapping) -> str:
    rows = "".join(_column(column) for column in asset["schema"] or [])
    mock = asset.get("mock")
    link = (
        f'<p><a href="/api/v1/products/{_text(product_id)}/assets/{_text(asset["asset_id"])}/mock.csv" download>'
        f'{_text(asset["asset_id"])}_mock.csv</a> <span class="soft">({mock["rows"]} mock rows, made from the description above; '
        "none of them is real)</span></p>"
        if mock
        else ""
    )
    description = f"<p>{_text(asset['description'], 2000)}</p>" if asset.get("description") else ""
    return (
        f"<h2>Table <code>{_text(asset['asset_id'])}</code></h2>{description}"
        f'<p class="soft">{_count(asset["rows_rounded"])} rows, {len(asset["schema"] or [])} columns.</p>'
        '<div class="scroll"><table><thead><tr><th>Column</th><th>Type</th><th>Unit</th><th>Range or values</th>'
        f'<th class="number">Missing</th><th>Meaning</th></tr></thead><tbody>{rows}</tbody></table></div>{link}'
    )


def _column(column: JsonMapping) -> str:
    label = ' <span class="label">label</span>' if column.get("label") else ""
    return (
        f'<tr><td class="name">{_text(column["name"])}{label}</td><td><code>{_text(column["type"])}</code></td>'
        f"<td>{_text(column.get('unit', ''))}</td><td>{_range(column)}</td>"
        f'<td class="number">{_share(column["missing"])}</td><td>{_text(column.get("description", ""))}</td></tr>'
    )


def _range(column: JsonMapping) -> str:
    if column.get("categories"):
        shown = [str(one) for one in column["categories"][:12]]
        more = len(column["categories"]) - len(shown)
        return _text(", ".join(shown) + (f", and {more} more" if more > 0 else ""), 600)
    low, high = column.get("minimum"), column.get("maximum")
    if low is None and high is None:
        return ""
    return f"{_text(_figure(low))} to {_text(_figure(high))}"


def _figure(value: object) -> str:
    return "…" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _share(value: float) -> str:
    return "" if not value else f"{value:.0%}"


def _count(rows: int | None) -> str:
    if rows is None:
        return "An unstated number of"
    return f"About {rows:,}" if rows else "Fewer than 10"


def _price(wei: str) -> str:
    ether = Decimal(wei) / Decimal(10**18)
    return "free" if not ether else f"{ether.normalize():f} ether"


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
        + "</dl>"
    )


def _sentences(rules: JsonMapping) -> str:
    said = [
        _POLICY[rules["policy"]],
        _RELEASE[rules["release"]],
        _LIVE[rules["live_output"]],
        _REHEARSAL[rules["rehearsal"]],
        "A failed script's own error message is part of its result."
        if rules["show_messages"]
        else "Of a failed script's error, class and line are told, not the message.",
        f"A lease gives {FAILED_RUNS_FREE} runs that fail by the script's own error for nothing, to mend it by: class and line of the "
        f"error and the last {FREE_OUTPUT_BYTES} bytes of output come back, and no files; whatever gives more is paid for.",
    ]
    return "<ul>" + "".join(f"<li>{_text(one)}</li>" for one in said) + "</ul>"


def _usage(document: JsonMapping, product_hash: str, earner: str) -> str:
    first = document["assets"][0]["asset_id"]
    script = (
        "from pandacea_sdk.client import PandaceaClient\n\n"
        'with PandaceaClient("https://…") as node:          # this node\n'
        f'    node.save_mocks("{document["product_id"]}", "mock")    # to write the script against\n'
        f'    lease_id = "0x…"                               # a lease on product "{document["product_id"]}"\n'
        f'    inputs = [{{"asset_id": "{first}", "variable_name": "table"}}]\n'
        '    answer = node.execute_computation(lease_id, "script.py", inputs)'
    )
    return (
        "<p>A lease is made on-chain: its <code>dataProductId</code> and its Earner are those below. The script then sees each table "
        "as a pandas DataFrame of the name you choose.</p>"
        f'<p class="soft">dataProductId <code>{_text(product_hash)}</code><br>Earner <code>{_text(earner)}</code></p>'
        f"<pre>{_text(script, 4000, newlines=True)}</pre>"
    )


def _limits(limits: JsonMapping) -> str:
    shown = [
        ("Memory", _bytes(limits["memory_bytes"])),
        ("Processors", f"{limits['cpus']:g}"),
        ("Time", f"{limits['time_seconds']:g} s"),
        ("Output", _bytes(limits["output_bytes"])),
        ("Files", f"{limits['artifact_count']}, together {_bytes(limits['artifacts_bytes'])}"),
        ("Network", "none"),
    ]
    return _facts(shown)


def _environment(environment: JsonMapping | None) -> str:
    if not environment:
        return ""
    digest = f'<p class="soft">{_text(environment["kind"])}, <code>{_text(environment["environment"])}</code></p>'
    packages = environment.get("packages")
    if not packages:
        return digest
    listed = _text(", ".join(packages), 20_000)
    return f"{digest}<details><summary>{len(packages)} packages</summary><p><code>{listed}</code></p></details>"


def _bytes(size: int) -> str:
    return f"{size / (1 << 20):g} MiB" if size >= 1 << 20 else f"{size / 1024:g} KiB"


def _text(value: object, limit: int = 500, *, newlines: bool = False) -> str:
    """Return a text of an Earner, or of anybody, escaped for the page."""
    return escape(printable(str(value), limit=limit, newlines=newlines), quote=True)


def _page(title: str, body: str) -> bytes:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    ).encode()
