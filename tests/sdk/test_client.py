"""The Spender's client against a real server: what is specified works, what is unsafe is refused, what is false is found."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pandacea_sdk.client import AsyncPandaceaClient, PandaceaClient
from pandacea_sdk.errors import (
    JobError,
    LeaseError,
    NodeError,
    NodeUnavailable,
    PandaceaError,
    RequestError,
    StillRunning,
    UntrustedResult,
    UsageError,
)
from pandacea_sdk.protocol.execute_request import ComputationInput, ExecuteRequest
from tests.sdk.conftest import CONTRACT, EARNER, LEASE, SPENDER, TOKEN, WEIGHTS, FakeNode, problem_response, sign_answer

INPUTS = [{"asset_id": "earner-data-asset-123", "variable_name": "features"}]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text("print('done')\n", encoding="utf-8")
    return path


@pytest.fixture
def client(node: FakeNode) -> Iterator[PandaceaClient]:
    with PandaceaClient(node.url, key="11" * 32) as made:
        yield made


def test_the_specified_call_gives_a_dict_and_decodes(client: PandaceaClient, script: Path) -> None:
    """execute_computation(lease_id, code_path, inputs) -> dict; decode_artifact(str) -> bytes."""
    answer = client.execute_computation(LEASE, str(script), INPUTS)
    assert isinstance(answer, dict)
    assert answer["success"] is True
    assert answer["results"]["output"] == "done\n"
    assert client.decode_artifact(answer["results"]["artifacts"]["model_weights.pth"]) == WEIGHTS


def test_a_verified_answer_names_its_signer(client: PandaceaClient, script: Path) -> None:
    """`verify` says who vouches for which hash."""
    answer = client.execute_computation(LEASE, script, INPUTS, params={"rounds": 3})
    verified = client.verify(answer)
    assert (verified.signer, verified.result_hash) == (EARNER.address, answer["result_hash"])


def test_a_long_computation_is_polled_with_its_token(node: FakeNode, client: PandaceaClient, script: Path) -> None:
    """202: the client follows to the result, long-polling with the job token, and verifies it the same way."""
    node.asynchronous = True
    answer = client.execute_computation(LEASE, script, INPUTS)
    assert answer["status"] == "completed"
    polls = [request for request in node.requests if "/results/" in request]
    assert polls == [f"GET /api/v1/privacy/results/{answer['computation_id']}?wait=30"] * 2
    assert client.verify(answer).signer == EARNER.address
    assert len(node.nonces) == 1, "only the first request was signed"


def test_it_works_inside_a_running_event_loop(node: FakeNode, script: Path) -> None:
    """As in a notebook: the synchronous client may be called where a loop already runs."""

    async def notebook() -> Any:
        with PandaceaClient(node.url, key="11" * 32) as made:
            return made.execute_computation(LEASE, script, INPUTS)

    assert asyncio.run(notebook())["success"]


async def test_the_asynchronous_twin_does_the_same(node: FakeNode, script: Path) -> None:
    """AsyncPandaceaClient: same arguments, same answers; many at a time."""
    async with AsyncPandaceaClient(node.url, key=SPENDER) as made:
        answers = await asyncio.gather(*(made.execute_computation(LEASE, script, INPUTS) for _ in range(5)))
        assert made.address == SPENDER.address
    assert len({answer["computation_id"] for answer in answers}) == 5


def test_uploads_go_before_the_request_that_names_them(
    node: FakeNode, client: PandaceaClient, script: Path, tmp_path: Path
) -> None:
    """Bytes and files are put by their sha-256 and named in the request."""
    (tmp_path / "w.pth").write_bytes(b"last round")
    client.execute_computation(LEASE, script, INPUTS, uploads={"weights": tmp_path / "w.pth", "seed": b"7"})
    assert set(node.uploads.values()) == {b"last round", b"7"}
    assert [request.split()[0] for request in node.requests] == ["GET", "PUT", "PUT", "POST"]


# ------------------------------------------------------------------ refusals before anything is sent


@pytest.mark.parametrize(
    ("lease_id", "inputs", "code"),
    [
        ("0x12", INPUTS, "bad-lease-id"),
        (LEASE, [{"asset_id": "../x", "variable_name": "x"}], "bad-asset-id"),
        (LEASE, [{"asset_id": "a", "variable_name": "lambda"}], "bad-variable-name"),
        (LEASE, [{"asset_id": "a"}], "missing-field"),
    ],
)
def test_a_malformed_request_is_refused_here(
    node: FakeNode, client: PandaceaClient, script: Path, lease_id: str, inputs: Any, code: str
) -> None:
    """The node's own checks run first on this side: nothing is sent, nothing is charged."""
    with pytest.raises(RequestError) as caught:
        client.execute_computation(lease_id, script, inputs)
    assert caught.value.code == code
    assert node.requests == []


def test_scripts_that_cannot_be_sent_are_refused_here(node: FakeNode, client: PandaceaClient, tmp_path: Path) -> None:
    """Missing, too large, not UTF-8, params that are no JSON: one sentence each, nothing sent."""
    bad, large, good = tmp_path / "bad.py", tmp_path / "large.py", tmp_path / "good.py"
    bad.write_bytes(b"x = '\xff'")
    large.write_text("ä" * 60_000, encoding="utf-8")
    good.write_text("pass")
    for path, error, match in [
        (tmp_path / "none.py", UsageError, "cannot be read"),
        (bad, UsageError, "not UTF-8"),
        (large, PandaceaError, "at most 102,400"),
    ]:
        with pytest.raises(error, match=match):
            client.execute_computation(LEASE, path, INPUTS)
    for params in (float("nan"), {"x": object()}, 2**60, "\ud800"):
        with pytest.raises(PandaceaError):
            client.execute_computation(LEASE, good, INPUTS, params=params)
    assert node.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://earner.example",
        "http://10.0.0.1:8080",
        "ftp://localhost",
        "localhost:8080",
        "http://localhost/x",
        "http://u:p@localhost",
        "",
    ],
)
def test_plain_http_leaves_this_machine_only_when_told(url: str) -> None:
    """Http to another machine, and addresses that are more than an origin, are refused; `insecure_http` is explicit."""
    with pytest.raises(UsageError):
        PandaceaClient(url, key="11" * 32)


def test_https_loopback_and_explicit_http_are_taken() -> None:
    """Loopback in every spelling, https anywhere, http when told."""
    for url in ("http://localhost:8080", "http://127.0.0.1", "http://[::1]:8080", "https://earner.example"):
        PandaceaClient(url).close()
    PandaceaClient("http://10.0.0.1:8080", insecure_http=True).close()


def test_without_a_key_public_things_work_and_signing_says_what_to_do(
    node: FakeNode, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue needs no key; a computation names the ways to give one."""
    monkeypatch.delenv("PANDACEA_PRIVATE_KEY", raising=False)
    with PandaceaClient(node.url) as keyless:
        assert keyless.products() == []
        with pytest.raises(UsageError, match="PANDACEA_PRIVATE_KEY"):
            keyless.execute_computation(LEASE, script, INPUTS)


@pytest.mark.parametrize(
    "inputs",
    [{"table": "a"}, [{"asset_id": "a", "variable_name": "table"}], {"asset_id": "a", "variable_name": "table"}],
)
def test_inputs_are_given_by_variable_or_as_the_request_carries_them(client: PandaceaClient, script: Path, inputs: Any) -> None:
    """`{"df": "patients"}` is what one tries first."""
    answer = client.execute_computation(LEASE, script, inputs)
    assert [(one["asset_id"], one["variable_name"]) for one in answer["manifest"]["inputs"]] == [("a", "table")]


@pytest.mark.parametrize("inputs", [["a"], "a", None, 7, [["a", "table"]]])
def test_inputs_of_another_shape_are_shown_the_right_one(node: FakeNode, client: PandaceaClient, script: Path, inputs: Any) -> None:
    """The sentence holds an example, and nothing is sent."""
    with pytest.raises(UsageError, match=r'such as \{"df": "patients"\}'):
        client.execute_computation(LEASE, script, inputs)
    assert not any("execute" in request for request in node.requests)


# ------------------------------------------------------------------ the node's refusals


def answering(code: str, status: int, **more: Any) -> Callable[..., Any]:
    async def hook(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
        return problem_response(code, status, **more) if request.path.endswith("execute") else None

    return hook


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("lease-expired", 403, LeaseError),
        ("unknown-spender", 403, LeaseError),
        ("asset-outside-product", 403, RequestError),
        ("product-unknown", 404, RequestError),
        ("product-version-moved", 409, RequestError),
        ("computation-failed", 409, JobError),
        ("code-of-tomorrow", 422, RequestError),
        ("internal-error", 500, NodeError),
    ],
)
def test_a_problem_becomes_its_typed_error(
    node: FakeNode, client: PandaceaClient, script: Path, code: str, status: int, error: type[PandaceaError]
) -> None:
    """Code, sentence, status and request id come through; the class says what to do; such answers are not retried."""
    node.hook = answering(code, status)
    with pytest.raises(error) as caught:
        client.execute_computation(LEASE, script, INPUTS)
    assert (caught.value.code, caught.value.status, caught.value.request_id) == (code, status, "r1")
    assert sum("execute" in request for request in node.requests) == 1


def test_a_busy_node_is_asked_again_for_the_same_computation(node: FakeNode, client: PandaceaClient, script: Path) -> None:
    """503: tried again, newly signed, under the same Idempotency-Key, so that one computation comes of it."""
    tries = 0

    async def busy(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
        nonlocal tries
        if request.path.endswith("execute"):
            tries += 1
            if tries < 3:
                return problem_response("unavailable", 503, retry_after=0)
        return None

    node.hook = busy
    answer = client.execute_computation(LEASE, script, INPUTS)
    assert (tries, len(node.jobs), len(node.nonces)) == (3, 1, 3)
    # The first attempt made the job, the third got its result: the client knows all three requests as its own.
    assert client.verify(answer).signer == EARNER.address


def test_a_lost_answer_is_asked_for_again(node: FakeNode, client: PandaceaClient, script: Path) -> None:
    """A connection cut after the request was taken: the next attempt finds the same computation."""
    tries = 0

    async def cut(request: web.Request, body: dict[str, Any]) -> None:
        nonlocal tries
        tries += request.path.endswith("execute")
        if tries == 1 and request.path.endswith("execute"):
            assert request.transport is not None
            request.transport.abort()

    node.hook = cut
    assert client.execute_computation(LEASE, script, INPUTS)["success"]
    assert (tries, len(node.jobs)) == (2, 1)


def test_nothing_listening_is_said_plainly(node: FakeNode, script: Path) -> None:
    """`no-answer` names the node; it takes a moment, not for ever."""
    with PandaceaClient("http://127.0.0.1:9", key="11" * 32, chain_id=1) as lonely, pytest.raises(NodeUnavailable) as caught:
        lonely.lease(LEASE)
    assert caught.value.code == "no-answer"
    assert "127.0.0.1:9" in str(caught.value)


def test_waiting_ends_and_can_be_taken_up_again(node: FakeNode, client: PandaceaClient, script: Path) -> None:
    """StillRunning carries the id; `result` goes on from there."""
    node.asynchronous, node.polls_until_ended = True, 10**6
    with pytest.raises(StillRunning) as caught:
        client.execute_computation(LEASE, script, INPUTS, timeout=1)
    node.polls_until_ended = 0
    answer = client.result(caught.value.computation_id)
    assert answer["success"]
    assert client.verify(answer).signer == EARNER.address


# ------------------------------------------------------------------ a result that another client asked for


def test_a_result_known_only_by_its_id_is_verified(node: FakeNode, client: PandaceaClient, script: Path) -> None:
    """Bytes, manifest, receipt, and the id itself, by any client with the key; with the request, all of it."""
    made = client.execute_computation(LEASE, script, INPUTS)
    with PandaceaClient(node.url, key="11" * 32) as other:
        answer = other.result(made["computation_id"])
        assert answer["results"] == made["results"]
        assert not other.verify(answer).request_compared
        request = ExecuteRequest(LEASE, script.read_text(), (ComputationInput(**INPUTS[0]),))
        assert other.verify(answer, request).request_compared
        with pytest.raises(UntrustedResult):
            other.verify(answer, replace(request, code="print('another')"))


def test_a_false_result_known_only_by_its_id_is_found(node: FakeNode, client: PandaceaClient, script: Path) -> None:
    """Other bytes, another computation, another Spender's, or one that nobody signed."""
    ids = [client.execute_computation(LEASE, script, INPUTS)["computation_id"] for _ in range(2)]
    honest, other = (node.jobs[computation] for computation in ids)
    strangers = {**honest["manifest"], "spender": "0x" + "99" * 20}
    swapped = {**honest["results"], "artifacts": {"model_weights.pth": base64.b64encode(b"other").decode()}}
    for lie, code in (
        (honest | {"results": swapped}, "bytes-mismatch"),
        (other, "bad-answer"),
        (other | {"computation_id": ids[0]}, "bad-manifest"),
        (sign_answer(strangers, honest["results"]), "bad-manifest"),
        ({"computation_id": ids[0], "success": True, "mode": "mock", "results": honest["results"]}, "bad-answer"),
    ):
        node.jobs[ids[0]] = lie
        with PandaceaClient(node.url, key="11" * 32) as reader, pytest.raises(UntrustedResult) as caught:
            reader.result(ids[0])
        assert caught.value.code == code
    with PandaceaClient(node.url, key="11" * 32) as reader:
        assert reader.result(ids[0], mode="mock")["success"], "whoever asked for a rehearsal gets one, unverified"


# ------------------------------------------------------------------ a node that lies


async def redirected(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
    return web.Response(status=307, headers={"Location": "http://evil.example/"}) if request.path.endswith("execute") else None


async def elsewhere(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
    if not request.path.endswith("execute"):
        return None
    return web.json_response(
        {"computation_id": "0x" + "99" * 32, "status": "pending", "job_token": TOKEN},
        status=202,
        headers={"Location": "https://evil.example/api/v1/privacy/results/" + "0x" + "99" * 32},
    )


async def not_json(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
    return web.Response(text="<html>") if request.path.endswith("execute") else None


async def twice(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
    return web.Response(text='{"a":1,"a":2}') if request.path.endswith("execute") else None


async def html_error(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
    return web.Response(text="<html>", status=404) if request.path.endswith("execute") else None


@pytest.mark.parametrize("hook", [redirected, elsewhere, not_json, twice, html_error])
def test_answers_that_lead_elsewhere_or_are_no_answers_are_refused(
    node: FakeNode, client: PandaceaClient, script: Path, hook: Any
) -> None:
    """No redirect, no Location of another origin, no answer of another shape is followed or believed."""
    node.hook = hook
    with pytest.raises((NodeError, RequestError)) as caught:
        client.execute_computation(LEASE, script, INPUTS)
    assert caught.value.code == "bad-answer"


def test_false_bytes_are_found(node: FakeNode, client: PandaceaClient, script: Path) -> None:
    """An artifact other than the one in the signed manifest."""

    async def swap(request: web.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        if request.path.endswith("execute"):
            body["results"]["artifacts"]["model_weights.pth"] = base64.b64encode(b"other").decode()
        return body

    node.hook = swap
    with pytest.raises(UntrustedResult) as caught:
        client.execute_computation(LEASE, script, INPUTS)
    assert caught.value.code == "bytes-mismatch"


def test_a_result_of_an_earlier_request_is_found(node: FakeNode, client: PandaceaClient, script: Path) -> None:
    """The Earner may not answer with another, nicer computation, however well it is signed."""
    earlier = client.execute_computation(LEASE, script, INPUTS)

    async def replay(request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        return earlier if request.path.endswith("execute") else body

    node.hook = replay
    with pytest.raises(UntrustedResult) as caught:
        client.execute_computation(LEASE, script, INPUTS)
    assert caught.value.code == "bad-manifest"


def test_a_contract_that_was_pinned_is_held_to(node: FakeNode, script: Path) -> None:
    """With `contract` given the node's word for another is not taken."""
    with PandaceaClient(node.url, key="11" * 32, contract="0x" + "dd" * 20) as pinned, pytest.raises(UntrustedResult):
        pinned.execute_computation(LEASE, script, INPUTS)
    with PandaceaClient(node.url, key="11" * 32, contract=CONTRACT.upper().replace("X", "x")) as pinned:
        assert pinned.execute_computation(LEASE, script, INPUTS)["success"]


def test_a_failed_script_is_an_answer_not_an_exception(node: FakeNode, client: PandaceaClient, script: Path) -> None:
    """Success false, a typed error, the results still there and verified."""

    async def fail(request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        if not request.path.endswith("execute"):
            return body
        body["manifest"]["exit"] = {"status": 1, "failure": "script-error", "error_type": "ValueError"}
        return sign_answer(body["manifest"], body["results"]) | {"error": {"type": "script-error", "message": "bad value"}}

    node.hook = fail
    answer = client.execute_computation(LEASE, script, INPUTS)
    assert (answer["success"], answer["error"]["type"]) == (False, "script-error")
    assert answer["results"]["output"] == "done\n"


def test_signed_headers_can_be_used_elsewhere(node: FakeNode, client: PandaceaClient) -> None:
    """`sign` gives headers for another HTTP client; they are accepted as the client's own."""
    headers = client.sign("GET", f"/api/v1/leases/{LEASE}")
    assert set(headers) == {"Signature-Input", "Signature"}
    assert client.lease(LEASE)["address"] == SPENDER.address


def test_a_closed_client_leaves_no_thread(node: FakeNode) -> None:
    """Closing ends the client's thread; forgetting it does too."""
    import gc
    import threading
    import time

    def threads() -> int:
        return sum(thread.name == "pandacea-client" for thread in threading.enumerate())

    gc.collect()  # clients that other tests forgot; their threads may end at any moment from here on
    before = threads()
    one = PandaceaClient(node.url)
    one.info()
    one.close()
    two = PandaceaClient(node.url)
    two.info()
    del two
    gc.collect()
    deadline = time.monotonic() + 5
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() <= before
