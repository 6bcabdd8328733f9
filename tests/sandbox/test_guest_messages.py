"""The parser of a guest's words, fed with everything: bytes drawn at random, and real conversations with each field gone wrong."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Failure, Outcome
from pandacea.domain.printable import printable
from pandacea.domain.table import BadShape, TableShape
from pandacea.sandbox.guest import packets
from pandacea.sandbox.guest_messages import (
    REPORTABLE_ERRNOS,
    MalformedMessageError,
    ReportedError,
    ScriptEnded,
    parse_message,
    parse_reported_error,
)
from pandacea.sandbox.outcome import ExternalCause, build_outcome
from pandacea.sandbox.results import ArtifactRefusedError, ResultsWriter
from pandacea.sandbox.script_run import RunState, apply_message, receive_run
from pandacea.sandbox.session import GuestLostError
from pandacea_sdk.protocol.manifest import canonical_json

TAGS = [value for name, value in vars(packets).items() if name.isupper() and isinstance(value, bytes)]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "ENOSPC", "\x1b[2J", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=12,
)
FIELDS = (
    "exit",
    "error",
    "output",
    "memory",
    "disk_full",
    "cpu_seconds",
    "name",
    "size",
    "reason",
    "asset_id",
    "message",
    "version",
)
LIMITS = Limits(output_bytes=64, artifact_bytes=64, artifacts_bytes=128, artifact_count=2)
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

LAST_WORD = {"type": "KeyError", "line": 3, "message": "'age'", "errno": "ENOSPC", "memory": False}
ENDED: dict[str, Any] = {
    "exit": 1,
    "error": json.dumps(LAST_WORD),
    "output": False,
    "memory": False,
    "disk_full": False,
    "cpu_seconds": 0.5,
    "peak_bytes": 1000,
    "load_seconds": 0.1,
}
CONVERSATION: list[tuple[bytes, Any]] = [
    (packets.STARTED, b""),
    (packets.WRITTEN, b"rows"),
    (packets.PROGRESS, struct.pack(">dd", 1, 2)),
    (packets.ENDED, ENDED),
    (packets.FILE, {"name": "a/b.csv", "size": 3}),
    (packets.BYTES, b"abc"),
    (packets.DONE, b""),
]
OTHERS: list[tuple[bytes, Any]] = [
    (packets.UNREADABLE, {"asset_id": "a", "message": "no table"}),
    (packets.REFUSED, {"name": "link", "reason": "a symbolic link is not a regular file"}),
    (packets.HELLO, {"version": 1, "threads": 1, "uid": 10001, "pid": 1, "python": "3.11"}),
    (packets.UNFIT, {"message": "no seccomp"}),
    (packets.TABLE, b"{}"),
]
WRONG: list[Any] = [
    None, True, -1, 2**70, 1e400, float("nan"), "", "x" * 40_000, "\ud800", "\x1b[2J", [], {}, [[[]]], {"a": []},
]  # fmt: skip


def packet(tag: bytes, body: Any) -> bytes:
    return tag + (body if isinstance(body, bytes) else json.dumps(body).encode())


def mutations(tag: bytes, body: Any) -> Iterator[bytes]:
    """One message with each field missing, of another type, huge; cut, doubled, and not of its form at all."""
    whole = packet(tag, body)
    yield from (whole[:-1], whole + whole, tag, tag + b"[]", tag + b"null", tag + b'"x"', tag + b"[" * 20_000, tag + b"\xff\xfe")
    yield tag + bytes(packets.MAX_PAYLOAD + 1)
    if isinstance(body, dict):
        for name in body:
            yield packet(tag, {key: value for key, value in body.items() if key != name})
            yield whole[:-1] + b"," + json.dumps({name: []})[1:].encode()  # the field twice
            yield from (packet(tag, body | {name: wrong}) for wrong in WRONG)
    if tag == packets.ENDED:
        for name in LAST_WORD:
            yield packet(tag, body | {"error": json.dumps({key: value for key, value in LAST_WORD.items() if key != name})})
            yield from (packet(tag, body | {"error": json.dumps(LAST_WORD | {name: wrong})}) for wrong in WRONG)


@QUICK
@given(
    st.sampled_from(TAGS) | st.binary(max_size=1), st.binary(max_size=200) | JSON | st.dictionaries(st.sampled_from(FIELDS), JSON)
)
@example(packets.FILE, b'{"name": "a", "size": Infinity}')
@example(packets.FILE, b'{"name": "a", "size": 1e999}')
@example(packets.HELLO, b"[]")
def test_any_packet_is_a_message_or_malformed(tag: bytes, body: Any) -> None:
    """Nothing else ever comes out of the parser, whatever goes in; its complaint quotes nothing of a guest's."""
    try:
        message = parse_message(packet(tag, body))
    except MalformedMessageError as error:
        assert str(error) == printable(str(error)), "the node's own words"
        return
    if isinstance(message, ScriptEnded):
        assert message.exit_status is None or -64 <= message.exit_status <= 255
        assert all(0 <= amount <= 2**53 for amount in message.usage.values())


@QUICK
@given(JSON | st.text() | st.fixed_dictionaries(dict.fromkeys(LAST_WORD, JSON)).map(json.dumps))
@example('{"type":"x","message":"y","line":1,"errno":[]}')
@example('{"type":"\\ud800","message":"y","line":1}')
def test_a_scripts_last_word_is_hearsay(told: Any) -> None:
    """Whatever it is, what is kept of it is bounded, printable and can be signed."""
    word = parse_reported_error(told)
    assert word.errno is None or word.errno in REPORTABLE_ERRNOS
    if word.error is not None:
        canonical_json({"type": word.error.type, "message": word.error.message})
        assert word.error.line is None or 1 <= word.error.line <= 10**6
        assert len(word.error.type) < 1200
        assert printable(word.error.type, limit=10_000) == word.error.type


@QUICK
@given(JSON | st.fixed_dictionaries({"schema": st.lists(st.dictionaries(st.sampled_from(("name", "type")), JSON)), "rows": JSON}))
def test_a_conversions_account_is_a_shape_or_refused(told: Any) -> None:
    """The column names of a hostile file among it."""
    if isinstance(told, dict):
        try:
            shape = TableShape.from_json(told)
        except BadShape:
            return
        canonical_json({"columns": [column.name for column in shape.columns]})


def test_every_mutation_of_a_conversation_ends_in_an_outcome(tmp_path: Path) -> None:
    """Real conversations, one message of which went wrong: an outcome that can be sealed, or the guest's own loss, and no other end."""
    count = 0
    for place, (tag, body) in enumerate(CONVERSATION):
        for number, wrong in enumerate(mutations(tag, body)):
            packets = [packet(*one) for one in CONVERSATION]
            packets[place] = wrong
            play(packets, tmp_path / f"{place}-{number}")
            count += 1
    for number, (tag, body) in enumerate(OTHERS):
        for place in range(len(CONVERSATION)):
            for other, wrong in enumerate([packet(tag, body), *mutations(tag, body)]):
                packets = [packet(*one) for one in CONVERSATION]
                packets.insert(place, wrong)
                play(packets, tmp_path / f"other-{number}-{place}-{other}")
                count += 1
    assert count > 500


@pytest.mark.parametrize("first", range(len(CONVERSATION)))
@pytest.mark.parametrize("second", range(len(CONVERSATION)))
def test_messages_in_another_order_are_spoken_out_of_turn(first: int, second: int, tmp_path: Path) -> None:
    """Two of them exchanged, or one of them twice."""
    packets = [packet(*one) for one in CONVERSATION]
    packets[first], packets[second] = packets[second], packets[first]
    play(packets, tmp_path / "exchanged")
    again = [packet(*one) for one in copy.copy(CONVERSATION)]
    again.insert(second, again[first])
    play(again, tmp_path / "twice")


def play(packets: list[bytes], folder: Path) -> Outcome | None:
    """What the node makes of these packets; None: the guest was lost."""
    folder.mkdir()
    account = RunState(LIMITS, ResultsWriter(folder, LIMITS))
    try:
        for one in packets:
            if account.done or account.output_overflow or account.refused is not None:
                break
            try:
                apply_message(parse_message(one), account, lambda _event: None)
            except ArtifactRefusedError as error:
                account.refused = str(error)
    except MalformedMessageError:
        outcome = build_outcome(account, 1.0, ExternalCause(Failure.GUEST_DIED, "lost"))
        assert outcome.artifacts == ()
        return None
    outcome = build_outcome(account, 1.0, None)
    kind = None if outcome.script_error is None else outcome.script_error.type
    canonical_json(
        {"detail": outcome.detail, "type": kind, "exit": outcome.exit_status, "names": [one.name for one in outcome.artifacts]}
    )
    assert printable(outcome.detail, limit=100_000) == outcome.detail
    return outcome


async def test_a_guest_that_never_stops_talking_leaves_the_node_its_turns(tmp_path: Path) -> None:
    """Packets that wait already are read without the event loop; after a few of them everything else has its turn."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    theirs.setblocking(False)
    theirs.send(packets.STARTED)
    sent = 0
    while sent < 200:
        theirs.send(packet(packets.PROGRESS, struct.pack(">dd", sent, 1)))
        sent += 1
    heard: list[object] = []
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(heard))
            await asyncio.sleep(0)

    account = RunState(LIMITS, ResultsWriter(tmp_path, LIMITS))
    other = asyncio.create_task(others())
    theirs.close()
    with pytest.raises(GuestLostError):
        await receive_run(ours, account, heard.append)
    other.cancel()
    ours.close()
    assert len(heard) == 201
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 16


def test_nothing_told_is_nothing_known() -> None:
    """A script that says nothing of its exception, or something else, is judged by its exit status."""
    for told in (None, 7, "", "x", "[]", "{}", '{"type": 1}', "[" * 100_000):
        assert parse_reported_error(told) == ReportedError()
