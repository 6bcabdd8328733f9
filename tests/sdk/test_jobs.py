"""Handles on computations: submitted, followed, found again, fetched in pieces; with honest nodes and others."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pandacea.domain.outcome import Artifact, Failure, Outcome, ScriptError
from pandacea.domain.product import LiveOutput, Policy, Release, Rules
from pandacea.flows.ports import CodeStarted, OutputWritten, ProgressReported, SandboxEvent, SandboxJob
from pandacea.flows.uploads import UploadQuota
from pandacea_sdk.async_client import AsyncPandaceaClient
from pandacea_sdk.client import PandaceaClient
from pandacea_sdk.errors import JobError, NodeError, NodeUnavailable, RequestError, StillRunning, UntrustedResult, UsageError
from pandacea_sdk.event_stream import JobEvent
from pandacea_sdk.transport import Reply, Transport
from tests.api.served import ServedNode, served
from tests.fakes import LEASE_ID
from tests.sdk.conftest import LEASE, WEIGHTS, FakeNode

SOURCE = "print('hello')\n"
INPUTS = {"table": "a"}
PICTURE = b"\x89PNG\r\n\x1a\n picture"


async def play(job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
    """A run that reports, prints and leaves a table of weights and a figure."""
    on_event(CodeStarted())
    on_event(ProgressReported(1, 2))
    on_event(OutputWritten(b"hello\n"))
    kept = []
    for place, (name, content) in enumerate({"w.json": b'{"a": [1, 2]}', "plot.png": PICTURE, "empty": b""}.items()):
        path = job.results_dir / str(place)
        path.write_bytes(content)
        kept.append(Artifact(name, path, len(content), hashlib.sha256(content).hexdigest()))
    return Outcome(None, "The script ended by itself.", b"hello\n", tuple(kept), exit_status=0, code_started=True)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[ServedNode]:
    """A node's own routes and database; only chain and box stand in."""
    with served(tmp_path) as made:
        rules = Rules(policy=Policy.ANY_CODE, release=Release.AUTO, live_output=LiveOutput.FULL, show_messages=True)
        made.world.catalogue.product = replace(made.world.catalogue.product, rules=rules)
        made.world.sandbox.run_job = play  # type: ignore[method-assign]
        yield made


@pytest.fixture
def client(real: ServedNode) -> Iterator[PandaceaClient]:
    with PandaceaClient(real.url, key="11" * 32) as made:
        yield made


@pytest.fixture
def lies(node: FakeNode) -> Iterator[PandaceaClient]:
    """A client of a node that can lie."""
    node.asynchronous, node.polls_until_ended = True, 0
    with PandaceaClient(node.url, key="11" * 32) as made:
        yield made


# ------------------------------------------------------------------ the handle


def test_a_run_gives_a_verified_result_with_files(client: PandaceaClient, tmp_path: Path) -> None:
    """Output, artifacts read when asked for, weights, figures, a citation, and one file of it all."""
    r = client.run(SOURCE, LEASE_ID, INPUTS, params={"lr": 0.01})
    assert (r.success, r.output, r.error) == (True, "hello\n", None)
    assert dict(r.artifacts) == {"w.json": b'{"a": [1, 2]}', "plot.png": PICTURE, "empty": b""}
    assert r.load_weights("w.json") == {"a": [1, 2]}
    assert r.figures == {"plot.png": PICTURE}
    assert r.verify().result_hash == r.answer["result_hash"]
    assert r.manifest is not None
    assert all(str(part) in r.cite() for part in (r.id, r.answer["result_hash"], r.manifest["earner"], r.manifest["code_sha256"]))
    saved = r.save(tmp_path / "run.zip")
    with zipfile.ZipFile(saved) as packed:
        assert set(packed.namelist()) == {
            *("answer.json", "manifest.json", "receipt.json", "output.txt", "script.py"),
            *("artifacts/w.json", "artifacts/plot.png", "artifacts/empty"),
        }
        assert packed.read("script.py").decode() == SOURCE
    with pytest.raises(UsageError, match="exists"):
        r.save(saved)
    assert [one.name for one in tmp_path.glob("run.zip*")] == ["run.zip"]
    shown = r._repr_html_()
    assert "<pre>hello\n</pre>" in shown
    assert "data:image/png;base64," in shown


def test_a_file_that_was_changed_on_the_disk_is_found(client: PandaceaClient) -> None:
    """`verify` hashes the files again."""
    r = client.run(SOURCE, LEASE_ID, INPUTS)
    r.artifacts.path("w.json").write_bytes(b"{}")
    with pytest.raises(UntrustedResult, match=r"w\.json"):
        r.verify()
    with pytest.raises(KeyError, match=r"plot\.png"):
        r.artifacts["none"]


def test_the_files_go_with_the_result(client: PandaceaClient) -> None:
    """Nothing is left in the folder for temporary files."""
    r = client.run(SOURCE, LEASE_ID, INPUTS)
    folder = r.artifacts.path("w.json").parent
    assert folder.is_dir()
    del r
    assert not folder.exists()


def test_a_handle_follows_and_is_made_again_from_the_id(real: ServedNode, client: PandaceaClient) -> None:
    """`c.job(id)` in another process: state, events from the start, result; the bytes are verified against the id."""
    job = client.submit(SOURCE, LEASE_ID, INPUTS)
    job.wait(30)
    assert job.status() == "completed"
    with PandaceaClient(real.url, key="11" * 32) as later:
        again = later.job(job.id)
        assert again.status() == "completed"
        assert again.wait().verify().computation_id == job.id
        assert [event.status for event in again.stream()] == ["completed"]
    with pytest.raises(UsageError, match="is not a computation id"):
        client.job("0x12")


def test_a_failed_script_points_at_the_line_of_its_file(real: ServedNode, client: PandaceaClient, tmp_path: Path) -> None:
    """An error is an answer: class, message, file and line."""
    script = tmp_path / "train.py"
    script.write_text("x = 1\ntable['agee']\n", encoding="utf-8")

    async def fails(job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        on_event(CodeStarted())
        error = ScriptError("KeyError", 2, "'agee'")
        return Outcome(Failure.SCRIPT_ERROR, "KeyError in line 2.", b"", script_error=error, exit_status=1, code_started=True)

    real.world.sandbox.run_job = fails  # type: ignore[method-assign]
    r = client.run(script, LEASE_ID, INPUTS)
    assert not r.success
    assert str(r.error) == f"{script}, line 2: KeyError: 'agee'"


def test_the_same_key_in_another_process_is_the_same_computation(real: ServedNode, client: PandaceaClient) -> None:
    """Charged once, verified by both; the order of names in params and uploads does not matter; another body is refused."""
    first = client.submit(
        SOURCE, LEASE_ID, INPUTS, params={"a": 1, "b": 2}, uploads={"x": b"1", "y": b"2"}, idempotency_key="night-7"
    )
    with PandaceaClient(real.url, key="11" * 32) as other:
        second = other.submit(
            SOURCE, LEASE_ID, INPUTS, params={"b": 2, "a": 1}, uploads={"y": b"2", "x": b"1"}, idempotency_key="night-7"
        )
        assert second.id == first.id
        assert second.wait().verify().request_compared
        assert first.wait().verify().request_compared
        assert other.lease(LEASE_ID)["used"] == 1
        with pytest.raises(RequestError) as caught:
            other.submit("print('other')\n", LEASE_ID, INPUTS, idempotency_key="night-7")
        assert caught.value.code == "idempotency-conflict"
        assert other.submit(SOURCE, LEASE_ID, INPUTS).id != first.id
    with pytest.raises(UsageError, match="idempotency_key"):
        client.submit(SOURCE, LEASE_ID, INPUTS, idempotency_key="two\nlines")


async def test_the_asynchronous_client_has_the_same_handles(real: ServedNode) -> None:
    """Awaited, and iterated with `async for`."""
    async with AsyncPandaceaClient(real.url, key="11" * 32) as c:
        job = await c.submit(SOURCE, LEASE_ID, INPUTS)
        kinds = [event.kind async for event in job.stream()]
        assert kinds[-1] == "state"
        assert (await job.wait()).output == "hello\n"
        assert await job.status() == "completed"


def test_waiting_can_be_taken_up_again(node: FakeNode, lies: PandaceaClient) -> None:
    """The id is in the error; cancelling is one call."""
    node.polls_until_ended = 10**6
    job = lies.submit(SOURCE, LEASE, INPUTS)
    with pytest.raises(StillRunning) as caught:
        job.wait(1)
    assert caught.value.computation_id == job.id
    node.polls_until_ended = 0
    assert lies.job(job.id).wait().artifacts["model_weights.pth"] == WEIGHTS


def test_a_computation_without_a_result_says_why(node: FakeNode, lies: PandaceaClient) -> None:
    """Cancelled, refused or lost: a sentence, no empty result."""
    job = lies.submit(SOURCE, LEASE, INPUTS)

    async def failed(request: web.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        return {"computation_id": job.id, "status": "failed", "reason": "The Earner refused it."}

    node.hook = failed
    with pytest.raises(JobError, match="The Earner refused it"):
        job.wait()


# ------------------------------------------------------------------ artifacts that break off, and lies


def test_an_artifact_is_continued_after_a_break(node: FakeNode, lies: PandaceaClient) -> None:
    """Range from the byte after the last, until it is whole; the hash is of all pieces."""
    node.pieces = [WEIGHTS[:3], b"", WEIGHTS[3:5]]
    r = lies.run(SOURCE, LEASE, INPUTS)
    assert r.artifacts["model_weights.pth"] == WEIGHTS
    assert [headers.get("Range") for headers in node.seen_headers] == [None, "bytes=3-", "bytes=3-", "bytes=5-"]


@pytest.mark.parametrize(
    ("body", "error", "match"),
    [
        (b"x" * len(WEIGHTS), UntrustedResult, "another sha-256"),
        (WEIGHTS + b"more", UntrustedResult, "more than the 9 stated"),
    ],
)
def test_false_bytes_are_never_kept(
    node: FakeNode,
    lies: PandaceaClient,
    body: bytes,
    error: type[Exception],
    match: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other bytes, or more of them: the error names the artifact, and no file stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def hook(request: web.Request, answer: dict[str, Any]) -> web.StreamResponse | None:
        return web.Response(body=body) if "/artifacts/" in request.path else None

    node.hook = hook
    with pytest.raises(error, match=match) as caught:
        lies.run(SOURCE, LEASE, INPUTS)
    assert "model_weights.pth" in str(caught.value)
    assert list(tmp_path.rglob("*")) == []


def test_an_endless_artifact_stops_at_its_size(node: FakeNode, lies: PandaceaClient) -> None:
    """What is not stated in the manifest is not read."""

    async def endless(request: web.Request, answer: dict[str, Any]) -> web.StreamResponse | None:
        if "/artifacts/" not in request.path:
            return None
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(b"x" * 65_536)
        return response

    node.hook = endless
    with pytest.raises(UntrustedResult, match="more than the 9 stated"):
        lies.run(SOURCE, LEASE, INPUTS)


def test_a_redirected_artifact_is_not_followed(node: FakeNode, lies: PandaceaClient) -> None:
    """Requests go to the node and nowhere else."""

    async def elsewhere(request: web.Request, answer: dict[str, Any]) -> web.StreamResponse | None:
        return web.Response(status=307, headers={"Location": "http://evil.example/"}) if "/artifacts/" in request.path else None

    node.hook = elsewhere
    with pytest.raises(NodeError, match="redirect"):
        lies.run(SOURCE, LEASE, INPUTS)


@pytest.mark.parametrize("sizes", [{"model_weights.pth": 8}, {}, {"other": 9}, {"model_weights.pth": 9, "more": 1}])
def test_names_and_sizes_must_be_those_of_the_manifest(node: FakeNode, lies: PandaceaClient, sizes: dict[str, int]) -> None:
    """Found before a byte of an artifact is fetched."""

    async def hook(request: web.Request, answer: dict[str, Any]) -> dict[str, Any] | None:
        return answer | {"results": answer["results"] | {"artifact_sizes": sizes}} if "manifest" in answer else None

    node.hook = hook
    with pytest.raises(UntrustedResult) as caught:
        lies.run(SOURCE, LEASE, INPUTS)
    assert caught.value.code == "bytes-mismatch"
    assert node.seen_headers == []


# ------------------------------------------------------------------ events


def event(kind: str, event_id: str, data: str) -> bytes:
    return f"event: {kind}\nid: {event_id}\ndata: {data}\n\n".encode()


def test_a_stream_goes_on_where_it_stopped(node: FakeNode, lies: PandaceaClient) -> None:
    """A new connection sends Last-Event-ID; the state that it repeats is not told twice; heartbeats and unknown kinds are skipped."""
    job = lies.submit(SOURCE, LEASE, INPUTS)
    node.streams = [
        event("state", "1.0.0", '{"status":"running"}') + event("output", "1.2.0", '{"offset":0,"output":"a\\n"}') + b"event: out",
        b": still here\n\n" + event("state", "1.2.0", '{"status":"running"}') + event("colour", "1.2.0", "{}"),
        event("progress", "1.2.1", '{"done":1,"total":4}') + event("state", "1.2.1", '{"status":"completed"}'),
    ]
    assert list(job.stream()) == [
        JobEvent("state", status="running"),
        JobEvent("output", output=b"a\n"),
        JobEvent("progress", done=1.0, total=4.0),
        JobEvent("state", status="completed"),
    ]
    assert [headers.get("Last-Event-ID") for headers in node.seen_headers] == [None, "1.2.0", "1.2.0"]


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (event("state", "1", "not json"), NodeError),
        (b"data: " + b"x" * (2**20 + 1), NodeError),
        (event("denied", "1", '{"code":"lease-cancelled","detail":"gone"}'), Exception),
    ],
)
def test_a_stream_that_makes_no_sense_ends_in_an_error(
    node: FakeNode, lies: PandaceaClient, stream: bytes, error: type[Exception]
) -> None:
    """No JSON, an event without end, and the node's own refusal."""
    job = lies.submit(SOURCE, LEASE, INPUTS)
    node.streams = [stream]
    with pytest.raises(error):
        list(job.stream())


def test_leaving_a_stream_early_is_fine(node: FakeNode, lies: PandaceaClient) -> None:
    """The connection is given back; the client goes on."""
    job = lies.submit(SOURCE, LEASE, INPUTS)
    node.streams = [event("state", "1", '{"status":"running"}') * 1]
    for _ in job.stream():
        break
    assert job.status() == "completed"


def test_a_rehearsal_has_a_result_too(node: FakeNode, lies: PandaceaClient) -> None:
    """Nobody signs it: artifacts come, `verify` says so."""
    job = lies.submit(SOURCE, LEASE, INPUTS, mode="mock")
    made = node.jobs[job.id]
    node.jobs[job.id] = {name: made[name] for name in ("success", "computation_id", "results")} | {"mode": "mock"}
    r = job.wait()
    assert io.BytesIO(r.artifacts["model_weights.pth"]).read() == WEIGHTS
    with pytest.raises(UntrustedResult, match="Nobody signs a rehearsal"):
        r.verify()
    assert "unsigned" in r.cite()


def test_a_node_that_is_gone_is_said_after_some_tries(
    node: FakeNode, lies: PandaceaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download gives up; the job can be waited for again."""
    monkeypatch.setattr("pandacea_sdk.downloads.MAX_BREAKS", 2)
    job = lies.submit(SOURCE, LEASE, INPUTS)
    node.pieces = [b""] * 3
    with pytest.raises(NodeUnavailable):
        job.wait()
    node.pieces = []
    assert job.wait().artifacts["model_weights.pth"] == WEIGHTS


def test_an_upload_that_the_node_has_is_not_sent_again(
    real: ServedNode, client: PandaceaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked first, by any process with the key; what the node would drop soon is sent again."""
    weights = b"w" * 5000
    sent: list[str] = []
    plain = Transport.send

    async def recorded(self: Transport, method: str, target: str, **options: Any) -> Reply:
        sent.append(f"{method} {len(options.get('body') or b'')}")
        return await plain(self, method, target, **options)

    monkeypatch.setattr(Transport, "send", recorded)
    real.world.uploads.quota = UploadQuota(keep_seconds=1000.0)
    digest = client.upload(weights)
    with PandaceaClient(real.url, key="11" * 32) as other:
        assert other.upload(weights) == digest
        assert [one for one in sent if one.startswith("PUT")] == ["PUT 5000"]
        real.world.uploads.quota = UploadQuota(keep_seconds=100.0)
        other.upload(b"x" * 5000)
        other.upload(b"x" * 5000)
    assert [one for one in sent if one.startswith("PUT")] == ["PUT 5000"] * 3
