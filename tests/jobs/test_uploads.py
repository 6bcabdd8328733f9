"""What a script needs beyond its 100 KB: capped for each Spender and in all, gone in time, given to the sandbox as it was sent."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp

from pandacea.domain.job import JobState
from pandacea.flows.unit_of_work import Database, ReadSession, UnitOfWork
from tests.api.conftest import until
from tests.jobs.conftest import EXECUTE, OTHER, SPENDER, JobAnswer, Served

DATA = b"w" * 600


def put(data: bytes) -> str:
    return f"/api/v1/privacy/uploads/{hashlib.sha256(data).hexdigest()}"


def folder(served: Served) -> Path:
    return served.world.uploads.files.folder


async def send(served: Served, data: bytes = DATA, **options: object) -> JobAnswer:
    return await served.send("PUT", put(data), data, **options)


def files(served: Served) -> list[str]:
    return sorted(path.name for path in folder(served).glob("*/*"))


async def test_an_upload_is_given_to_the_script_that_names_it(served: Served) -> None:
    """By name, read-only, and named by its digest in the manifest."""
    assert (await send(served)).status == 204
    digest = hashlib.sha256(DATA).hexdigest()
    computation_id = await served.submit(uploads={"weights": digest})
    play = await served.stage.next_play()
    path = play.job.uploads["weights"]
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o444
    play.ends()
    await served.reaches(computation_id, JobState.COMPLETED)
    manifest = json.loads((await served.row(computation_id)).manifest or "")
    assert manifest["uploads"] == {"weights": digest}


async def test_a_script_can_name_only_what_its_spender_sent(served: Served) -> None:
    """Unknown, another's and expired look alike."""
    absent = await served.send("POST", EXECUTE, served.body(uploads={"w": "0" * 64}))
    assert absent.code == "upload-unknown"
    await send(served)
    assert not served.world.uploads.files.path_of(OTHER.address.lower(), hashlib.sha256(DATA).hexdigest()).exists()
    served.clock.added += 101
    old = await served.send("POST", EXECUTE, served.body(uploads={"w": hashlib.sha256(DATA).hexdigest()}))
    assert old.code == "upload-unknown"


async def test_bytes_must_have_the_digest_of_the_path(served: Served) -> None:
    """What was signed is what is stored: neither another path nor another body."""
    assert (await served.send("PUT", put(b"other"), DATA)).code == "upload-mismatch"
    headers = served.headers("PUT", put(DATA), DATA, SPENDER, {})
    url = f"http://127.0.0.1:{served.server.port}{put(DATA)}"
    async with served.session.put(url, data=b"x" * 600, headers=headers) as response:
        assert (await response.json())["code"] == "upload-mismatch"
    assert (await served.send("PUT", "/api/v1/privacy/uploads/ABC", DATA)).code == "bad-upload"
    assert files(served) == []


async def test_strangers_upload_nothing(served: Served) -> None:
    """Only spenders of approved leases may write to the disk."""
    assert (await send(served, signer=OTHER)).code == "unknown-spender"
    assert files(served) == []


async def test_a_spender_has_so_much_room(served: Served) -> None:
    """Bytes and files, those still arriving counted."""
    for number in range(3):
        assert (await send(served, bytes([number]) * 600)).status == 204
    assert (await send(served, b"z" * 600)).code == "uploads-full"
    assert (await send(served, b"z" * 900)).code == "uploads-full"
    assert len(files(served)) == 3


async def test_two_uploads_at_once_cannot_share_the_last_room(served: Served) -> None:
    """Room is reserved before the first byte."""
    answers = await asyncio.gather(*(send(served, bytes([number]) * 990) for number in range(3)))
    assert sorted(answer.status for answer in answers) == [204, 204, 507]


async def test_one_upload_may_be_so_large(served: Served) -> None:
    """Whether its size was announced or not."""
    assert (await send(served, b"x" * 1001)).code == "body-too-large"

    async def unannounced() -> object:
        for _ in range(11):
            yield b"y" * 100

    data = b"y" * 1100
    headers = served.headers("PUT", put(data), data, SPENDER, {})
    url = f"http://127.0.0.1:{served.server.port}{put(data)}"
    try:
        async with served.session.put(url, data=unannounced(), headers=headers) as response:
            assert (await response.json())["code"] == "body-too-large"
    except aiohttp.ClientOSError:
        pass  # the node hung up while more was coming: its answer may be lost
    assert files(served) == []


async def test_uploads_go_in_time_but_not_from_under_a_waiting_job(served: Served) -> None:
    """Sending again keeps for longer; a job that waits keeps what it names."""
    await send(served, b"a" * 600)
    await send(served, b"b" * 600)
    waiting = [await served.submit() for _ in range(3)]  # every worker is busy
    named = await served.submit(uploads={"w": hashlib.sha256(b"a" * 600).hexdigest()})
    plays = [await served.stage.next_play() for _ in waiting]
    served.clock.added += 101
    assert await served.world.uploads.remove_expired() == 1
    assert files(served) == [hashlib.sha256(b"a" * 600).hexdigest()]
    for play in plays:
        play.ends()
    last = await served.stage.next_play()
    assert last.job.computation_id == named
    last.ends()
    await served.reaches(named, JobState.COMPLETED)
    assert await served.world.uploads.remove_expired() == 1
    assert files(served) == []


class CountingDatabase:
    """A database that counts the units of work that were asked for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.begun = 0

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[UnitOfWork]:
        self.begun += 1
        async with self._database.unit_of_work() as work:
            yield work

    def read_session(self) -> AbstractAsyncContextManager[ReadSession]:
        return self._database.read_session()

    async def prune_nonces(self, before: int) -> None:
        await self._database.prune_nonces(before)


async def test_what_is_sent_again_stays_although_the_old_one_is_being_thrown_away(served: Served) -> None:
    """An upload that was accepted is there when its job starts."""
    await send(served)
    served.clock.added += 101
    uploads, database = served.world.uploads, served.world.submit.database
    uploads.database = counted = CountingDatabase(database)
    async with database.unit_of_work():  # both of them come while a third writes
        sweeping = asyncio.create_task(uploads.remove_expired())
        await until(lambda: counted.begun == 1)
        sending = asyncio.create_task(send(served))
        await until(lambda: counted.begun == 2)
    assert (await sending).status == 204
    assert await sweeping == 1
    assert files(served) == [hashlib.sha256(DATA).hexdigest()]


async def test_a_start_sweeps_what_no_row_names(served: Served) -> None:
    """Halves of uploads that a killed node was receiving."""
    await send(served)
    mine = folder(served) / SPENDER.address.lower()
    (mine / ".1234.part").write_bytes(b"half")
    (folder(served) / "0xother").mkdir()
    (folder(served) / "0xother" / ("0" * 64)).write_bytes(b"stray")
    await served.world.uploads.remove_unknown()
    assert files(served) == [hashlib.sha256(DATA).hexdigest()]
    assert not (folder(served) / "0xother").exists()


async def test_a_full_disk_takes_no_uploads(served: Served) -> None:
    """503, before the bytes."""
    served.world.uploads.files = replace(served.world.uploads.files, free_bytes=lambda _: 10)
    assert (await send(served)).code == "disk-full"


async def test_whether_an_upload_is_here_can_be_asked_before_it_is_sent(served: Served) -> None:
    """Size and time; absent, expired and another's look alike; asking keeps it no longer."""
    assert (await served.send("GET", put(DATA))).code == "upload-unknown"
    await send(served)
    answer = await served.send("GET", put(DATA))
    assert answer.json == {
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "size": 600,
        "kept_until": answer.json["kept_until"],
    }
    assert 90 < answer.json["kept_until"] - served.clock.now() <= 100
    assert (await served.send("GET", put(DATA), signer=OTHER)).code == "unknown-spender"
    assert (await served.send("GET", "/api/v1/privacy/uploads/ABC")).code == "bad-upload"
    served.clock.added += 101
    assert (await served.send("GET", put(DATA))).code == "upload-unknown"
