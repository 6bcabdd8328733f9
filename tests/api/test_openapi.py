"""The published interface is the served one: described from the models that validate, held against real answers, fuzzed with signing."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from pandacea.api.openapi.document import build_document, list_routes
from pandacea.api.openapi.page import PAGE_POLICY, render_page
from pandacea.api.routes import add_routes
from pandacea_sdk.protocol import problems
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.signing import sign_request
from tests.api.served import AUTHORITY, SPENDER, ServedNode, served
from tests.fakes import CHAIN_ID, LEASE_ID

SCALE = float(os.environ.get("PANDACEA_TEST_SCALE", "1"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedNode]:
    with served(tmp_path_factory.mktemp("node")) as made:
        yield made


async def nothing(_request: web.Request) -> web.Response:
    return web.Response()


def described() -> dict[str, Any]:
    app = web.Application()
    add_routes(app)
    return build_document(app, "1.2.3")


def send(node: ServedNode, request: requests.Request, *, signed: bool = True) -> requests.Response:
    """Send a request as requests prepares it, signed over exactly that."""
    prepared = request.prepare()
    prepared.headers["Host"] = AUTHORITY
    if signed:
        body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
        assert body is None or isinstance(body, bytes)
        # A target or header that cannot be signed goes as it is: the node has to refuse it.
        with contextlib.suppress(ProtocolError):
            prepared.headers.update(
                sign_request(
                    SPENDER,
                    method=str(prepared.method),
                    authority=AUTHORITY,
                    target=prepared.path_url,
                    chain_id=CHAIN_ID,
                    created=int(time.time()),
                    nonce=base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("="),
                    headers={name: str(value) for name, value in prepared.headers.items()},
                    body=body,
                )
            )
    with requests.Session() as session:
        session.trust_env = False
        return session.send(prepared, timeout=30)


def execute(node: ServedNode, **headers: str) -> requests.Response:
    body = {"lease_id": LEASE_ID, "code": "print('hello')", "inputs": [{"asset_id": "a", "variable_name": "table"}]}
    headers["Content-Type"] = "application/json"
    return send(node, requests.Request("POST", f"{node.url}/api/v1/privacy/execute", data=json.dumps(body), headers=headers))


# ------------------------------------------------------------------ the document


def test_every_served_route_is_described_and_nothing_else() -> None:
    """A handler without @operation fails here."""
    app = web.Application()
    add_routes(app)
    told = {(method.upper(), path) for path, methods in described()["paths"].items() for method in methods}
    assert told == set(list_routes(app))
    app.router.add_get("/api/v1/secret", nothing)
    with pytest.raises(LookupError, match="/api/v1/secret"):
        build_document(app, "1")


def test_the_document_holds_together() -> None:
    """3.1, unique operation ids, every reference resolves, every path parameter is declared."""
    found = described()
    assert found["openapi"] == "3.1.0"
    text = json.dumps(found)
    names = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert names <= found["components"]["schemas"].keys()
    operations = [(path, operation) for path, methods in found["paths"].items() for operation in methods.values()]
    ids = [operation["operationId"] for _, operation in operations]
    assert len(ids) == len(set(ids))
    for path, operation in operations:
        declared = {item["name"] for item in operation.get("parameters", []) if item["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_every_code_of_the_table_is_documented_somewhere() -> None:
    """What a node may answer stands in an operation's answers; a new code that nobody documents fails here."""
    text = json.dumps(described())
    # By status alone (405 has no route to stand in), by class alone, or said to the operator only.
    everywhere = {"refused", "method-not-allowed", "not-held"}
    missing = {code for code in problems.PROBLEM_KINDS if code not in problems.SDK_PROBLEMS and f'"{code}"' not in text}
    assert missing <= everywhere, missing - everywhere


def test_the_request_schema_says_what_the_reader_checks() -> None:
    """Patterns and limits are the reader's own constants."""
    schema = described()["components"]["schemas"]["ExecuteRequest"]
    assert schema["properties"]["code"]["maxLength"] == 102_400
    assert re.fullmatch(schema["properties"]["lease_id"]["pattern"][1:-1], LEASE_ID)
    assert schema["additionalProperties"] is False


def test_the_page_needs_no_network_and_runs_no_script() -> None:
    """One file: no script, no address of another place, its only style allowed by hash; what is hostile in it is escaped."""
    found = described()
    found["info"]["title"] = "<script>alert(1)</script>"
    page = render_page(found).decode()
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=(?!#)", page)
    assert "http" not in re.sub(r"HTTP", "", page) or "https://" not in page
    assert "lease-expired" in page
    assert "default-src 'none'" in PAGE_POLICY


# ------------------------------------------------------------------ real answers


def test_a_computation_is_answered_as_described(node: ServedNode) -> None:
    """200, 202, status, artifacts, cancel: each answer has its documented shape."""
    schema = schemathesis.openapi.from_dict(node.described)

    def check(path: str, response: requests.Response, method: str = "GET") -> None:
        schema[path][method].validate_response(response)

    route = "/api/v1/privacy/execute"
    done = execute(node)
    assert done.status_code == 200, done.text
    check(route, done, "POST")
    accepted = execute(node, Prefer="respond-async")
    assert accepted.status_code == 202
    check(route, accepted, "POST")
    results = "/api/v1/privacy/results/{computation_id}"
    url = f"{node.url}{accepted.json()['location']}?wait=10"
    polled = requests.get(url, headers={"Host": AUTHORITY, "Pandacea-Job-Token": accepted.json()["job_token"]}, timeout=20)
    assert polled.json()["status"] == "completed"
    check(results, polled)
    gone = send(node, requests.Request("DELETE", f"{node.url}{accepted.json()['location']}"))
    assert gone.json()["code"] == "not-cancellable"
    check(results, gone, "DELETE")


# ------------------------------------------------------------------ fuzzing

schema = schemathesis.openapi.from_dict(described())


@schema.parametrize()
@settings(max_examples=int(25 * SCALE), deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_whatever_is_sent_is_answered_as_described(node: ServedNode, case: Any) -> None:
    """Signed or not, well formed or not: no 5xx, no status, media type or shape that the document does not name."""
    known = {"lease_id": LEASE_ID, "product_id": "p"}
    for name in known.keys() & (case.path_parameters or {}).keys():
        if secrets.randbelow(2):
            case.path_parameters[name] = known[name]
    kwargs = case.as_transport_kwargs(base_url=node.url)
    request = requests.Request(
        **{name: value for name, value in kwargs.items() if name in {"method", "url", "headers", "params", "data", "json", "files"}}
    )
    try:
        response = send(node, request, signed=bool(secrets.randbelow(8)))
    except (requests.exceptions.InvalidHeader, UnicodeEncodeError, ValueError):
        return  # what the client library cannot put on the wire is tested with raw bytes elsewhere
    case.validate_response(response, checks=CHECKS)


def test_the_document_is_served(node: ServedNode, tmp_path: Path) -> None:
    """GET /openapi.json gives the very document."""
    answer = requests.get(f"{node.url}/openapi.json", timeout=10)
    assert answer.json() == json.loads(json.dumps(node.described))
