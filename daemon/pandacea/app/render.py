"""Renders answers of the control socket as text for a terminal. Everything a Spender wrote is escaped first."""

from __future__ import annotations

import base64
import json
import time
from decimal import Decimal

from pandacea.domain.code_review import escape_hidden
from pandacea.domain.printable import printable
from pandacea_sdk.protocol.json_types import JsonObject


def render_answer(verb: str, answer: JsonObject) -> str:
    """Render the answer to a verb."""
    if verb == "results list":
        return "\n".join(_held_row(one) for one in answer["results"]) or "No result is held."
    if verb == "results show":
        return _result_page(answer)
    if verb == "code list":
        return "\n".join(_code_row(one) for one in answer["scripts"]) or "No script waits."
    if verb == "code show":
        return _code_page(answer)
    if verb == "products list":
        left_out = [f"{one['product_id']} is NOT on offer: {printable(one['detail'], limit=2000)}" for one in answer["not_offered"]]
        return "\n".join([*(_product_row(one) for one in answer["products"]), *left_out]) or "No product is on offer."
    if verb == "products show":
        return printable(json.dumps(answer, indent=2, ensure_ascii=False), limit=1_000_000, newlines=True)
    if verb == "products reload":
        rejected = [f"{one['product_id']} is NOT on offer: {printable(one['detail'], limit=2000)}" for one in answer["troubles"]]
        return "\n".join([f"On offer: {', '.join(answer['products']) or 'nothing'}", *rejected])
    if verb == "replay":
        return _replay_page(answer)
    if verb.startswith("leases "):
        return _lease_answer(verb, answer)
    named = answer.get("computation_id") or answer.get("code_id")
    return f"{named} is {answer['state']} now."


def _lease_answer(verb: str, answer: JsonObject) -> str:
    if verb == "leases show":
        return _lease_page(answer)
    if verb == "leases reread":
        return "\n".join(_difference_row(one) for one in answer["changed"]) or "Nothing changed: the rows have all that was read."
    return f"{answer['lease_id']} is acknowledged now: its approval counts."


def _difference_row(one: JsonObject) -> str:
    before, after = one["before"], one["after"]
    if before is None:
        return f"{one['lease_id']}  was not known; {after['status']} now"
    changed = [f"{name} {before[name]} -> {after[name]}" for name in before if before[name] != after[name]]
    return f"{one['lease_id']}  {', '.join(changed) or 'events were missing that change no term'}"


def _lease_page(one: JsonObject) -> str:
    product = "unknown" if one["data_product_id"] is None else one["product_id"] or "none that is on offer here"
    reason = one["by"] or "nobody has looked at it yet"
    return "\n".join(
        [
            f"lease        {one['lease_id']}",
            f"status       {one['status']}",
            f"product      {product} ({one['data_product_id']})",
            f"spender      {one['spender']}",
            f"price        {_ether(one['price_wei'])} ether",
            f"expires      {'never' if one['expires_at'] is None else _local_time(one['expires_at'])}",
            f"computations {one['max_computations']}",
            f"approved     in block {one['approved_block']} by transaction {one['approved_tx']}",
            f"approval     {one['approval']}: {reason}",
            "",
            "Acknowledged, the lease opens its product to its Spender on your word, without a proof from the chain.",
        ]
    )


def _product_row(one: JsonObject) -> str:
    price = f"{_ether(one['price_wei'])} ether"
    return f"{one['product_id']:<32} {printable(one['name'], limit=60):<40} {price:>20}  {', '.join(one['assets'])}"


def _held_row(one: JsonObject) -> str:
    ended = one["failure"] or "completed"
    return f"{one['computation_id']}  {_local_time(one['finished_at'])}  {ended:<16} {one['stored_bytes']:>10,} bytes  {one['product_id']}"


def _result_page(one: JsonObject) -> str:
    output = base64.b64decode(one["output"])
    text = output.decode("utf-8", "backslashreplace")
    more = one["output_bytes"] - len(output)
    inputs = ", ".join(f"{item['asset_id']} as {printable(item['variable_name'])}" for item in one["inputs"])
    lines = [
        f"computation  {one['computation_id']}",
        f"state        {one['state']}",
        f"product      {one['product_id']}",
        f"spender      {one['spender']}",
        f"lease        {one['lease_id']}",
        f"ran          {_local_time(one['started_at'])} to {_local_time(one['finished_at'])}",
        f"ended        {printable(one['detail'])}",
        f"inputs       {inputs or 'none'}",
        f"params       {printable(one['params'], limit=2000)}",
        "",
        f"--- output, {one['output_bytes']:,} bytes; control characters and the like as escapes ---",
        *(f"| {line}" for line in printable(text, limit=len(text), newlines=True).split("\n")),
        *([f"--- {more:,} bytes of the output are NOT SHOWN here; the whole of it: {one['output_file']} ---"] if more else []),
        "--- artifacts: look with care, a file here is whatever the script wrote ---",
        *(f"{item['size']:>12,}  {printable(item['name'])}  {item['file']}" for item in one["artifacts"]),
    ]
    if one["error"] is not None and one["error"].get("exception_message"):
        lines.insert(7, f"message      {printable(one['error']['exception_message'], limit=2000)}")
    if one["state"] == "held":
        lines += [
            "",
            f"pandacea results release {one['computation_id']} --seen {one['seen']}",
            f"pandacea results refuse {one['computation_id']} --reason ...",
        ]
    return "\n".join(lines)


def _code_row(one: JsonObject) -> str:
    lease = "has a lease" if one["has_lease"] else "no lease"
    return (
        f"{one['code_id']}  {_local_time(one['created_at'])}  {one['state']:<8} {one['bytes']:>7,} bytes  {one['product_id']}  "
        f"{one['submitter']} ({lease})  {printable(one['note'], limit=60)}"
    ).rstrip()


def _code_page(one: JsonObject) -> str:
    numbered = enumerate(escape_hidden(one["code"]).split("\n"), 1)
    inputs = ", ".join(f"{printable(name)} = {asset}" for name, asset in sorted(one["inputs"].items())) or "none"
    warnings = [f"line {item['line']:>4}: {printable(item['why'], limit=400)}" for item in one["warnings"]]
    return "\n".join(
        [
            f"script       {one['code_id']}",
            f"state        {one['state']}{': ' + printable(one['reason']) if one['reason'] else ''}",
            f"product      {one['product_id']}",
            f"from         {one['submitter']} ({'has a lease' if one['has_lease'] else 'no lease'}), {_local_time(one['created_at'])}",
            f"note         {printable(one['note'], newlines=True)}",
            "",
            "An approval covers the script together with these, and nothing else:",
            f"inputs       {inputs}",
            f"uploads      {', '.join(one['uploads']) or 'none'}",
            f"params       {printable(json.dumps(one['params_schema'], sort_keys=True), limit=1_000_000)}",
            f"             they can carry {one['params_free_bytes']:,} bytes of the Spender's choosing; an upload carries any",
            "",
            "--- script; everything beyond plain ASCII as escapes ---",
            *(f"{number:>5}  {line}" for number, line in numbered),
            "--- look at these lines; the list is a help, not a proof ---",
            *(warnings or ["nothing was noticed"]),
            "",
            f"pandacea code approve {one['code_id']}",
            f"pandacea code reject {one['code_id']} --reason ...",
        ]
    )


def _replay_page(one: JsonObject) -> str:
    if one["equal"]:
        return f"{one['computation_id']} repeated: output, artifacts and exit are, byte for byte, those signed as {one['result_hash']}."
    how = "did not repeat" if one["ran"] else "cannot be repeated"
    rows = [f"  {printable(item['what'], limit=200)}: {printable(item['reason'], limit=400)}" for item in one["differences"]]
    return "\n".join([f"{one['computation_id']} {how}:", *rows])


def render_audit_row(one: JsonObject) -> str:
    """Render one row of the audit log: number, time, event, who, and the ids and states that it names."""
    shown = ("computation_id", "lease_id", "code_id", "state", "failure", "left", "charge", "reason", "result_hash")
    named = "  ".join(f"{name}={printable(str(one[name]), limit=200)}" for name in shown if one.get(name) is not None)
    at = _local_time(one.get("at"))
    return f"{one.get('seq', '?'):>6}  {at}  {printable(str(one.get('event')))}  {printable(str(one.get('by')))}  {named}".rstrip()


def _local_time(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _ether(wei: str) -> str:
    return f"{Decimal(wei).scaleb(-18).normalize():f}"
