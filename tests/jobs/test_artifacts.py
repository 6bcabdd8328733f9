"""Artifacts and whole results: ranges, versions, and the lease asked while they stream."""

from __future__ import annotations

import asyncio
import base64
import json

import aiohttp
import pytest

from pandacea.api import responses
from pandacea.domain.job import JobState
from pandacea.domain.lease import LeaseStatus
from pandacea_sdk.protocol.manifest import hash_manifest
from tests.jobs.conftest import EXECUTE, Served, results

BYTES = bytes(range(256)) * 4


async def completed(served: Served, **artifacts: bytes) -> str:
    """A computation that left artifacts."""
    computation_id = await served.submit()
    (await served.stage.next_play()).ends(**(artifacts or {"weights__pt": BYTES}))
    await served.reaches(computation_id, JobState.COMPLETED)
    return computation_id


def path(computation_id: str, name: str = "weights.pt") -> str:
    return results(computation_id, f"/artifacts/{name}")


async def test_an_artifact_comes_whole_as_an_attachment(served: Served) -> None:
    """Its version names no digest of its bytes; nothing may keep it."""
    answer = await served.send("GET", path(await completed(served)))
    assert (answer.status, answer.body) == (200, BYTES)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''weights.pt"
    assert answer.headers["accept-ranges"] == "bytes"
    assert len(answer.headers["etag"]) < 40


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-299", 100, 299),
        ("bytes=1000-", 1000, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=1000-5000", 1000, 1023),
        ("bytes=-5000", 0, 1023),
        ("Bytes=0-0", 0, 0),
    ],
)
async def test_one_range_is_served(served: Served, asked: str, first: int, last: int) -> None:
    """RFC 9110, section 14: first and last byte count, both included."""
    answer = await served.send("GET", path(await completed(served)), Range=asked)
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/1024"
    assert answer.body == BYTES[first : last + 1]


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=a-b"])
async def test_what_is_no_single_range_is_ignored(served: Served, asked: str) -> None:
    """The whole is an allowed answer to any of them."""
    answer = await served.send("GET", path(await completed(served)), Range=asked)
    assert (answer.status, answer.body) == (200, BYTES)


async def test_a_range_beyond_the_end_cannot_be_served(served: Served) -> None:
    """416, and the size to ask within (RFC 9110, section 15.5.17)."""
    computation_id = await completed(served)
    for asked in ("bytes=1024-", "bytes=-0"):
        answer = await served.send("GET", path(computation_id), Range=asked)
        assert (answer.status, answer.code) == (416, "range-not-satisfiable")
        assert answer.headers["content-range"] == "bytes */1024"


async def test_a_version_that_is_held_is_not_sent_again(served: Served) -> None:
    """If-None-Match answers 304; If-Range of another version, or of a weak one, answers the whole."""
    computation_id = await completed(served)
    etag = (await served.send("GET", path(computation_id))).headers["etag"]
    same = await served.send("GET", path(computation_id), If_None_Match=f'"x", {etag}')
    assert (same.status, same.body) == (304, b"")
    assert (await served.send("GET", path(computation_id), Range="bytes=0-9", If_Range=etag)).status == 206
    for other in ('"other"', f"W/{etag}", "Tue, 15 Nov 1994 08:12:31 GMT"):
        assert (await served.send("GET", path(computation_id), Range="bytes=0-9", If_Range=other)).status == 200


async def test_the_head_of_an_artifact_has_no_body(served: Served) -> None:
    """Size and version without the bytes; a range means nothing there (RFC 9110, section 14.2)."""
    computation_id = await completed(served)
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=5000-"}):
        answer = await served.send("HEAD", path(computation_id), **headers)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-length"] == "1024"


async def test_names_come_back_as_the_script_wrote_them(served: Served) -> None:
    """Folders, spaces and other alphabets."""
    computation_id = await completed(served, **{"out/ma x": b"1", "größe": b"2"})
    assert (await served.send("GET", path(computation_id, "out/ma%20x"))).body == b"1"
    assert (await served.send("GET", path(computation_id, "gr%C3%B6%C3%9Fe"))).body == b"2"
    assert (await served.send("GET", path(computation_id, "ma%20x"))).code == "artifact-unknown"


async def test_the_lease_is_asked_while_an_artifact_streams(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled on-chain in the middle: the rest does not leave, and the answer cannot be taken for whole."""
    monkeypatch.setattr(responses, "CHUNK_BYTES", 3 * 65_536)
    computation_id = await completed(served, big=b"x" * 50_000_000)
    async with served.request("GET", path(computation_id, "big")) as response:
        assert len(await response.content.readexactly(1000)) == 1000
        served.lease(status=LeaseStatus.CANCELLED)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_synchronous_answer_carries_the_whole_result(served: Served) -> None:
    """Streamed piece by piece, yet one JSON object of known size; its digests are the manifest's."""
    waiting = asyncio.create_task(served.send("POST", EXECUTE, served.body()))
    play = await served.stage.next_play()
    play.writes(b'{"a": "\xff"}}\n')
    play.ends(a__bin=b"x" * 200_001, empty=b"", c__bin=b"yz")
    answer = await waiting
    assert answer.status == 200
    assert int(answer.headers["content-length"]) == len(answer.body)
    body = json.loads(answer.body)
    assert base64.b64decode(body["results"]["output_base64"]) == b'{"a": "\xff"}}\n'
    artifacts = {name: base64.b64decode(text) for name, text in body["results"]["artifacts"].items()}
    assert artifacts == {"a.bin": b"x" * 200_001, "empty": b"", "c.bin": b"yz"}
    assert hash_manifest(body["manifest"]) == body["result_hash"]
    assert body["success"] is True


async def test_a_result_without_artifacts_is_whole_too(served: Served) -> None:
    """The smallest result is an answer, too."""
    waiting = asyncio.create_task(served.send("POST", EXECUTE, served.body()))
    (await served.stage.next_play()).ends()
    assert (await waiting).json["results"] == {"output": "", "artifacts": {}}


async def test_a_result_can_be_read_without_the_bytes_of_its_artifacts(served: Served) -> None:
    """`?artifacts=none`: manifest, receipt and output as in the whole answer, and names and sizes instead of base64."""
    computation_id = await completed(served)
    whole = (await served.send("GET", results(computation_id))).json
    short = (await served.send("GET", results(computation_id, "?artifacts=none"))).json
    assert short["results"] == {"output": whole["results"]["output"], "artifact_sizes": {"weights.pt": len(BYTES)}}
    assert {**short, "results": None} == {**whole, "results": None}
    assert (await served.send("GET", results(computation_id, "?artifacts=some"))).code == "bad-parameter"


async def test_a_lost_lease_also_closes_the_answer_without_bytes(served: Served) -> None:
    """What names and sizes say leaves as little as the bytes."""
    computation_id = await completed(served)
    served.lease(status=LeaseStatus.CANCELLED)
    answer = await served.send("GET", results(computation_id, "?artifacts=none"))
    assert answer.status == 403
    assert b"weights" not in answer.body
