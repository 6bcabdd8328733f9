"""Everything that is not a good request: its own code, a 4xx, nothing executed."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import sign_request
from tests.journeys.conftest import INPUTS, System

EXECUTE = "/api/v1/privacy/execute"


@pytest.fixture(scope="module")
def lease(weather: System) -> Iterator[str]:
    yield weather.lease()
    with sqlite3.connect(weather.folder / "state" / "pandacea.db") as database:
        jobs = database.execute("select count(*) from job").fetchone()[0]
    assert jobs == 0, "a refused request made a job"


def send(weather: System, body: bytes, *, headers: dict[str, str] | None = None, **signing: Any) -> tuple[int, dict[str, Any]]:
    """POST signed by the Spender; the status and the problem."""
    signer = KeySigner(weather.accounts[2]["private_key"])
    values: dict[str, Any] = {
        "method": "POST",
        "authority": f"localhost:{weather.port}",
        "target": EXECUTE,
        "body": body,
        "chain_id": 131277322940537,
        "created": int(time.time()),
        "nonce": _nonce(),
        **signing,
    }
    sent = {"Content-Type": "application/json", **sign_request(signer, **values), **(headers or {})}
    request = urllib.request.Request(weather.url + EXECUTE, data=body, headers=sent, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as problem:
        assert problem.headers["Content-Type"].startswith("application/problem+json")
        return problem.code, json.load(problem)


def _nonce() -> str:
    import secrets

    return secrets.token_urlsafe(16)


def body(lease: str, **changes: Any) -> bytes:
    return json.dumps({"lease_id": lease, "code": "print(1)", "inputs": INPUTS, **changes}).encode()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", "malformed-json"),
        (b"\xff\xfe", "not-utf8"),
        (b'{"code": "a", "code": "b"}', "duplicate-key"),
        (b"[]", "wrong-type"),
        (b"[" * 5000 + b"]" * 5000, "json-too-deep"),
    ],
)
def test_what_is_no_json_is_refused(weather: System, lease: str, raw: bytes, code: str) -> None:
    """Before a single field is looked at."""
    assert lease
    status, problem = send(weather, raw)
    assert (status, problem["code"]) == (400, code)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"surprise": 1}, 400, "unknown-field"),
        ({"code": 5}, 400, "wrong-type"),
        ({"code": "x" * 102_401}, 413, "code-too-large"),
        ({"lease_id": "0x12"}, 400, "bad-lease-id"),
        ({"inputs": [{"asset_id": "../etc", "variable_name": "x"}]}, 400, "bad-asset-id"),
        ({"inputs": [{"asset_id": "a", "variable_name": "1x"}]}, 400, "bad-variable-name"),
        ({"inputs": [{"asset_id": "a", "variable_name": "class"}]}, 400, "bad-variable-name"),
        ({"inputs": [*INPUTS, INPUTS[0]]}, 400, "duplicate-asset"),
        ({"inputs": [INPUTS[0], {**INPUTS[1], "variable_name": "features"}]}, 400, "duplicate-variable"),
        ({"inputs": [{"asset_id": "unknown", "variable_name": "x"}]}, 403, "asset-outside-product"),
        ({"code": "def broken(:"}, 400, "code-syntax"),
        ({"code": "import os"}, 403, "code-import-refused"),
    ],
)
def test_each_bad_field_has_its_own_code(weather: System, lease: str, changes: dict[str, Any], status: int, code: str) -> None:
    """A program can branch on the code; a person reads what to do."""
    answered, problem = send(weather, body(lease, **changes))
    assert (answered, problem["code"]) == (status, code), problem
    assert len(problem["detail"]) > 20


def test_the_largest_script_is_taken_to_the_byte(weather: System, lease: str) -> None:
    """102,400 bytes of UTF-8 pass the size check: the refusal that follows is another."""
    _, problem = send(weather, body(lease, code="#" * 102_400, inputs=[{"asset_id": "unknown", "variable_name": "x"}]))
    assert problem["code"] == "asset-outside-product"


def test_unsigned_wrongly_signed_expired_and_replayed_requests_are_told_apart(weather: System, lease: str) -> None:
    """401, each with its own code."""
    raw = body(lease, inputs=[{"asset_id": "unknown", "variable_name": "x"}])
    now = int(time.time())
    assert send(weather, raw, headers={"Signature": "", "Signature-Input": ""})[1]["code"].startswith("signature-m")
    assert send(weather, raw, created=now - 1000)[1]["code"] == "signature-expired"
    assert send(weather, raw, authority="elsewhere:8080", headers={"Host": "elsewhere:8080"})[1]["code"] == "wrong-authority"
    other = sign_request(
        KeySigner("77" * 32),
        method="POST",
        authority=f"localhost:{weather.port}",
        target=EXECUTE,
        body=raw,
        chain_id=131277322940537,
        created=now,
        nonce=_nonce(),
    )
    status, problem = send(weather, raw, headers=other)
    assert (status, problem["code"]) == (403, "unknown-spender")
    nonce = _nonce()
    assert send(weather, raw, nonce=nonce, created=now)[1]["code"] == "asset-outside-product"
    status, problem = send(weather, raw, nonce=nonce, created=now)
    assert (status, problem["code"]) == (401, "request-replayed")
