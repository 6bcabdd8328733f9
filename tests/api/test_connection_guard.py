"""The edge: what a connection can cost before anybody knows whose it is, and that no request gets round the guards."""

from __future__ import annotations

import asyncio
import gzip
import logging
import time

import pytest

from pandacea.api.connection_guard import ConnectionAdmission, HttpLimits
from tests.api.conftest import GuardedNode, StartNode, raw_request, read_answer, send_raw, until

OK = raw_request("GET", "/plain", {}, None)


async def ended(reader: asyncio.StreamReader, seconds: float = 5.0) -> bytes:
    """Everything until the server closes the connection; fails when it does not."""
    async with asyncio.timeout(seconds):
        return await reader.read()


async def still_serves(node: GuardedNode) -> None:
    assert (await send_raw(node.port, OK)).status == 200


def test_the_default_limits_let_the_largest_script_through() -> None:
    """100 KB of code, escaped as badly as JSON allows, fits a body."""
    assert HttpLimits().body_bytes > 102_400 * 6 + 1024


# ------------------------------------------------------------------ slow and idle connections


async def test_a_head_sent_byte_by_byte_is_cut_off(start_node: StartNode) -> None:
    """Slow-loris: a byte now and then does not keep a connection beyond the deadline for the head; the client is told why."""
    node = await start_node(HttpLimits(head_seconds=0.5))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    start = time.monotonic()

    async def drip() -> None:
        for byte in OK[:-4] * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    rest = await ended(reader)
    dripping.cancel()
    assert b" 408 " in rest
    assert b"request-timeout" in rest
    assert time.monotonic() - start < 2
    writer.close()
    await still_serves(node)


async def test_a_connection_that_sends_nothing_is_closed(start_node: StartNode) -> None:
    """Silence is cut off by the same deadline."""
    node = await start_node(HttpLimits(head_seconds=0.3))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    assert await ended(reader, 3) == b""
    writer.close()


async def test_a_kept_connection_that_goes_quiet_is_closed(start_node: StartNode) -> None:
    """Between requests a connection lives `idle_seconds`; half of a next head does not prolong it."""
    node = await start_node(HttpLimits(idle_seconds=0.3, head_seconds=0.3))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(OK + OK[:20])  # the half head arrives together with a whole request
    await read_answer(reader)
    assert await ended(reader, 3) == b""
    writer.close()


async def test_a_body_sent_slowly_is_cut_off(start_node: StartNode) -> None:
    """A body has its own deadline, and the answer says so."""
    node = await start_node(HttpLimits(body_seconds=0.3))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    answer = await read_answer(reader)
    assert (answer.status, answer.code) == (408, "request-timeout")
    assert node.handled == []
    writer.close()


async def test_a_reader_that_does_not_read_is_cut_off(start_node: StartNode) -> None:
    """An answer larger than the buffers does not hold its connection and memory for ever."""
    node = await start_node(HttpLimits(write_seconds=0.5))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port, limit=1024)
    writer.write(raw_request("GET", "/big", {}, None))
    await until(lambda: node.server.connections.opened > 0 and node.server.connections.open == 0)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError, TimeoutError)):
        async with asyncio.timeout(5):
            await reader.readexactly(50_000_000)
    writer.close()


async def test_long_handlers_and_keep_alive_are_not_cut_off(start_node: StartNode) -> None:
    """The deadlines are for peers: a handler that takes longer than all of them answers, and the connection goes on."""
    node = await start_node(HttpLimits(head_seconds=0.2, idle_seconds=1.0, body_seconds=0.2))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    for _ in range(3):
        writer.write(raw_request("GET", "/slow?seconds=0.4", {}, None))
        assert (await read_answer(reader)).status == 200
    writer.close()


async def test_one_peer_cannot_take_every_connection(start_node: StartNode) -> None:
    """Beyond its share a peer gets a 503 at once, and its place back when it lets go."""
    node = await start_node(HttpLimits(connections_per_peer=3))
    held = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(3)]
    for reader, writer in held:
        writer.write(OK)
        await read_answer(reader)
    refused = await send_raw(node.port, OK)
    assert (refused.status, refused.code) == (503, "too-many-connections")
    assert refused.headers["retry-after"]
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    await until(lambda: node.server.connections.open == 0)
    await still_serves(node)


async def test_a_thousand_idle_connections_leave_the_server_answering(start_node: StartNode) -> None:
    """1,000 open and silent: a request among them is answered within a moment; they end by themselves."""
    node = await start_node(HttpLimits(connections=1100, connections_per_peer=1100, head_seconds=3))
    idle = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(1000)]
    start = time.monotonic()
    await still_serves(node)
    assert time.monotonic() - start < 0.5
    answers = await asyncio.gather(*(ended(reader, 10) for reader, _ in idle))
    assert set(answers) == {b""}
    for _, writer in idle:
        writer.close()
    assert node.server.connections.open <= 1


class FakeConnection:
    """A connection that does nothing but give way."""

    def __init__(self, peer: str, connections: ConnectionAdmission) -> None:
        self.peer, self.connections = peer, connections
        self.open = connections.admit(peer, self, proxied=peer == "proxy")

    def close_if_overdue(self, now: float) -> None:
        """Do nothing: it has no deadline."""

    def evict(self) -> None:
        self.connections.release(self.peer, self)
        self.open = False


def test_counting_places_is_exact() -> None:
    """What enters leaves; a declared proxy counts only in all; nothing is kept for peers that are gone."""
    connections = ConnectionAdmission(HttpLimits(connections=3, connections_per_peer=1))
    places = [FakeConnection(peer, connections) for peer in ("a", "a", "proxy", "proxy")]
    for place in places:
        if place.open:
            connections.mark_busy(place)
    places.append(FakeConnection("b", connections))
    assert [place.open for place in places] == [True, False, True, True, False]
    for place in places:
        if place.open:
            connections.release(place.peer, place)
    assert (connections.open, dict(connections._peers), connections._all, connections._known) == (0, {}, set(), {})


def test_who_is_idle_for_longest_gives_way_and_spenders_last() -> None:
    """A full house: strangers go in the order in which they went idle, busy ones never, a Spender only when no stranger is idle."""
    connections = ConnectionAdmission(HttpLimits(connections=4, connections_per_peer=1, connections_per_spender=1))
    spender, busy, first, second = (FakeConnection(peer, connections) for peer in ("s", "t", "u", "v"))
    connections.assign_to_spender("0x5e", spender)
    for place in (spender, busy, first):
        connections.mark_busy(place)
    for place in (spender, first):
        connections.mark_idle(place)  # `first` went idle after `second`, which never asked for anything
    newcomers = [FakeConnection(f"w{n}", connections) for n in range(2)]
    assert [place.open for place in (spender, busy, first, second)] == [True, True, False, False]
    for place in newcomers:
        connections.mark_busy(place)
    assert FakeConnection("x", connections).open
    assert not spender.open
    assert connections._spenders == {}


def test_one_spender_keeps_no_more_than_its_share_of_a_full_house() -> None:
    """Beyond it, a connection is as good as a stranger's: it gives way once it is idle."""
    connections = ConnectionAdmission(HttpLimits(connections=3, connections_per_peer=9, connections_per_spender=1))
    places = [FakeConnection("s", connections) for _ in range(3)]
    for place in places:
        connections.mark_busy(place)
        connections.assign_to_spender("0x5e", place)
        connections.mark_idle(place)
    newcomers = [FakeConnection("n", connections) for _ in range(2)]
    assert [place.open for place in (*places, *newcomers)] == [True, False, False, True, True]


# ------------------------------------------------------------------ floods


async def test_a_flood_of_headers_is_refused(start_node: StartNode) -> None:
    """Too many lines, too long a line, too much in all: 431, and the server goes on."""
    node = await start_node()
    many = raw_request("GET", "/plain", {f"X-{n}": "1" for n in range(200)}, None)
    long = raw_request("GET", "/plain", {"X": "a" * 9000}, None)
    much = raw_request("GET", "/plain", {f"X-{n}": "a" * 4000 for n in range(8)}, None)
    endless = b"GET /plain HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000
    for raw in (many, long, much, endless):
        answer = await send_raw(node.port, raw)
        assert (answer.status, answer.code) == (431, "headers-too-large")
    assert node.handled == []
    await still_serves(node)


async def test_a_head_near_the_limit_passes_whatever_the_segments(start_node: StartNode) -> None:
    """A legal head is not mistaken for a flood when it comes in pieces, nor is a body after it counted."""
    node = await start_node(HttpLimits(head_bytes=4096))
    raw = raw_request("POST", "/plain", {"X": "a" * 3900}, b"b" * 100_000)
    for size in (1000, 4050, 7, 100_000):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        for start in range(0, min(len(raw), 8000), size):
            writer.write(raw[start : start + size] if start + size < 8000 else raw[start:8000])
            await writer.drain()
            if size > 100:
                await asyncio.sleep(0)
        writer.write(raw[8000:])
        assert (await read_answer(reader)).status == 200
        writer.close()


async def test_an_oversized_body_is_refused_by_its_length_and_by_its_bytes(start_node: StartNode) -> None:
    """Content-Length beyond the limit is refused before a byte of it is read; a chunked body when it gets there."""
    node = await start_node(HttpLimits(body_bytes=1000, upload_bytes=2000))
    announced = b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n"
    assert (await send_raw(node.port, announced)).code == "body-too-large"
    chunked = (
        b"POST /plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"200\r\n" + b"a" * 512 + b"\r\n") * 10
        + b"0\r\n\r\n"
    )
    answer = await send_raw(node.port, chunked)
    assert (answer.status, answer.code) == (413, "body-too-large")
    upload = node.signed_request("PUT", "/upload", bytes(2001))
    assert (await send_raw(node.port, upload)).code == "body-too-large"
    assert node.handled == []
    await still_serves(node)


async def test_many_large_bodies_at_once_are_bounded_together(start_node: StartNode) -> None:
    """Strangers cannot fill the memory with bodies that are each within the limit."""
    node = await start_node(HttpLimits(body_bytes=1000, stranger_bodies_bytes=2500))
    held = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"a" * 900)
        held.append((reader, writer))
    await until(lambda: node.quotas.stranger_bytes == 1800)
    assert (await send_raw(node.port, raw_request("POST", "/plain", {}, b"a" * 1000))).code == "too-many-connections"
    for reader, writer in held:
        writer.write(b"a" * 100)
        assert (await read_answer(reader)).status == 200
        writer.close()
    assert (await send_raw(node.port, raw_request("POST", "/plain", {}, b"a" * 1000))).status == 200


async def test_compressed_bodies_are_refused_not_inflated(start_node: StartNode) -> None:
    """A bomb of a megabyte of zeros is refused by its Content-Encoding, on any method and in any spelling."""
    node = await start_node()
    bomb = gzip.compress(bytes(50_000_000))
    for encoding in ("gzip", "GZIP", "deflate", "br", "identity, gzip"):
        answer = await send_raw(node.port, raw_request("POST", "/plain", {"Content-Encoding": encoding}, bomb))
        assert (answer.status, answer.code) == (415, "content-encoding-refused")
    assert node.handled == []


# ------------------------------------------------------------------ tricks


@pytest.mark.parametrize(
    "target",
    [
        "//plain",
        "/./plain",
        "/x/../plain",
        "/%70lain",
        "/plain%2f",
        "/x/%2e%2e/plain",
        "/plain;x\\y",
        "/plain%00",
        "/plain#x",
        "http://127.0.0.1/plain",
        "/plain?x=#y",
        "/plain?%zz",
    ],
)
async def test_a_path_has_one_spelling(start_node: StartNode, target: str) -> None:
    """What could be read in two ways never reaches a route."""
    node = await start_node()
    answer = await send_raw(node.port, raw_request("GET", target, {}, None))
    assert answer.status == 400
    assert answer.code in {"bad-target", "bad-request"}
    assert node.handled == []


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /plain\r\n\r\n",
        b"GET /plain HTTP/9.9\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /plain HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n",
        b"GET /plain HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /plain HTTP/1.1\r\nHost: x\r\n folded: x\r\n\r\n",
        b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"DELETE /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
async def test_what_is_no_clean_request_is_a_problem_and_no_more(
    start_node: StartNode, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Smuggling, bad framing and noise are answered with problem+json, reach no route, and write no log a stranger could flood."""
    node = await start_node()
    with caplog.at_level(logging.INFO):
        answer = await send_raw(node.port, raw)
    assert 400 <= answer.status < 500
    assert answer.code
    assert node.handled == []
    assert caplog.records == []
    await still_serves(node)


async def test_unknown_paths_and_methods_are_problems(start_node: StartNode) -> None:
    """404 and 405 (with Allow) have their codes; HEAD gives no body."""
    node = await start_node()
    assert (await send_raw(node.port, raw_request("GET", "/nothing", {}, None))).code == "not-found"
    answer = await send_raw(node.port, raw_request("GET", "/anyone", {}, None))
    assert (answer.code, answer.headers["allow"]) == ("method-not-allowed", "POST")
    assert (await send_raw(node.port, raw_request("HEAD", "/plain", {}, None))).body == b""


async def test_the_nodes_own_errors_tell_a_stranger_nothing(start_node: StartNode) -> None:
    """A bug is a 500 with a request id, a broken node a 503 without its reason, an unavailable one says when to come back."""
    node = await start_node()
    bug = await send_raw(node.port, raw_request("GET", "/breaks", {}, None))
    assert (bug.status, bug.code) == (500, "internal-error")
    broken = await send_raw(node.port, raw_request("GET", "/breaks?how=broken", {}, None))
    assert (broken.status, broken.code) == (503, "broken")
    assert b"secret" not in bug.body + broken.body
    busy = await send_raw(node.port, raw_request("GET", "/breaks?how=unavailable", {}, None))
    assert (busy.status, busy.code, busy.headers["retry-after"], busy.json["retry_after"]) == (503, "unavailable", "7", 7)


async def test_an_answer_that_breaks_off_is_seen_as_broken(start_node: StartNode) -> None:
    """An error in the middle of a stream ends the connection without the last chunk, never as a whole answer."""
    node = await start_node()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(raw_request("GET", "/stream", {}, None))
    rest = await ended(reader)
    assert b"x" * 100 in rest
    assert not rest.endswith(b"0\r\n\r\n")
    writer.close()


# ------------------------------------------------------------------ stopping


async def test_stopping_lets_requests_under_way_end(start_node: StartNode) -> None:
    """A stop waits for the handlers within the grace period, and takes nothing new."""
    node = await start_node(grace_seconds=5)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(raw_request("GET", "/slow?seconds=0.5", {}, None))
    await until(lambda: "slow" in node.handled)
    port = node.port
    stopping = asyncio.create_task(node.server.stop())
    await asyncio.sleep(0.1)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    assert (await read_answer(reader)).status == 200
    await stopping
    writer.close()


async def test_stopping_ends_within_the_grace_period(start_node: StartNode) -> None:
    """A handler that does not end is cut off."""
    node = await start_node(grace_seconds=0.3)
    _, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(raw_request("GET", "/slow?seconds=60", {}, None))
    await until(lambda: "slow" in node.handled)
    start = time.monotonic()
    await node.server.stop()
    assert time.monotonic() - start < 3
    writer.close()
