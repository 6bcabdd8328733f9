"""Parses the packets of a guest into typed messages: each field is checked, bounded and printable before anything acts on it.

A guest is a process of a stranger, so its supervisor is not trusted either: an invalid packet ends the session. What the script's process
reports about its own exception is trusted even less: invalid fields of that report are dropped, and the exit status decides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pandacea.domain.outcome import ScriptError
from pandacea.domain.printable import printable
from pandacea.sandbox.guest import packets
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.strict_json import check_depth

MAX_JSON_BYTES: Final = 32_768
DISK_FULL_ERRNOS: Final = frozenset({"ENOSPC", "EDQUOT", "EFBIG"})
"""Errno names of a script's OSError when its file systems are full."""
REPORTABLE_ERRNOS: Final = DISK_FULL_ERRNOS | {"EAGAIN"}
"""Errno names that explain a failure; any other is dropped."""
_TYPE_CHARACTERS: Final = 100
_MESSAGE_CHARACTERS: Final = 2000
_NAME_CHARACTERS: Final = 8192
_REASON_CHARACTERS: Final = 300
_MAX_LINE: Final = 1_000_000
_MAX_NUMBER: Final = 2**53
_MAX_DEPTH: Final = 8
_ABSENT: Final = object()


class MalformedMessageError(Exception):
    """A guest sent an invalid message. The text is the node's own and quotes nothing of the guest."""


@dataclass(frozen=True, slots=True)
class GuestHello:
    """The guest is ready for its job."""

    version: int
    threads: int
    uid: int


@dataclass(frozen=True, slots=True)
class GuestUnfit:
    """The guest cannot start."""

    message: str


@dataclass(frozen=True, slots=True)
class TableUnreadable:
    """An asset cannot be read as a table; no code of the script ran."""

    asset_id: str
    message: str


@dataclass(frozen=True, slots=True)
class ScriptStarted:
    """The guest received the script's first byte."""


@dataclass(frozen=True, slots=True)
class GuestOutput:
    """Bytes of stdout or stderr."""

    data: bytes


@dataclass(frozen=True, slots=True)
class GuestProgress:
    """The script's progress as any two doubles; infinities and NaN are possible."""

    done: float
    total: float


@dataclass(frozen=True, slots=True)
class ReportedError:
    """What the script's process reported about its own exception."""

    error: ScriptError | None = None
    errno: str | None = None
    """One of `TOLD_ERRORS`."""
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class ScriptEnded:
    """How the script ended, as its supervisor observed it."""

    exit_status: int | None
    """As a shell shows it; negative: the number of the signal."""
    reported_error: ReportedError
    too_much_output: bool
    out_of_memory: bool
    disk_full: bool
    usage: Mapping[str, float]
    """`cpu_seconds`, `peak_bytes` and `load_seconds`, as far as the supervisor knows them."""


@dataclass(frozen=True, slots=True)
class ArtifactRefused:
    """A file may not leave the sandbox, so no artifact does."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ArtifactBegins:
    """A file of `size` bytes follows; `name` is not checked yet."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class ArtifactBytes:
    """A piece of the current file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """A piece of a conversion's JSON report."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AllSent:
    """The guest has sent everything."""


GuestMessage = (
    GuestHello
    | GuestUnfit
    | TableUnreadable
    | ScriptStarted
    | GuestOutput
    | GuestProgress
    | ScriptEnded
    | ArtifactRefused
    | ArtifactBegins
    | ArtifactBytes
    | ConversionReport
    | AllSent
)


def parse_message(packet: bytes) -> GuestMessage:
    """Parse one packet.

    Raises:
        MalformedMessageError: its tag is unknown, or a field is missing, of another type, or out of bounds.
    """
    tag, payload = packet[:1], packet[1:]
    if len(payload) > packets.MAX_PAYLOAD:
        raise MalformedMessageError(f"a packet of {len(packet)} bytes")
    if tag in _BYTE_READERS:
        return _BYTE_READERS[tag](payload)
    if tag in _EMPTY_MESSAGES:
        if payload:
            raise MalformedMessageError(f"{len(payload)} bytes after a {tag!r} that carries none")
        return _EMPTY_MESSAGES[tag]()
    if tag == packets.PROGRESS:
        if len(payload) != packets.PROGRESS_PAIR.size:
            raise MalformedMessageError(f"progress of {len(payload)} bytes")
        return GuestProgress(*packets.PROGRESS_PAIR.unpack(payload))
    reader = _OBJECT_READERS.get(tag)
    if reader is None:
        raise MalformedMessageError(f"an unknown tag {tag!r}")
    return reader(_Fields(tag, _read_object(tag, payload)))


class _Fields:
    """Typed access to the members of one JSON object; an invalid member raises MalformedMessageError."""

    def __init__(self, tag: bytes, members: JsonObject) -> None:
        self._tag, self._members = tag, members

    def text(self, name: str, limit: int) -> str:
        """Return a string of at most `limit` characters, made printable."""
        value = self._members.get(name)
        if not isinstance(value, str) or len(value) > limit:
            raise self._invalid(name)
        return printable(value, limit=limit)

    def name(self, name: str) -> str:
        """Return a string as it came, for the caller's own check; it has no surrogates, so that it can be encoded."""
        value = self._members.get(name)
        if not isinstance(value, str) or len(value) > _NAME_CHARACTERS or not _encodes(value):
            raise self._invalid(name)
        return value

    def integer(self, name: str, lowest: int, highest: int) -> int:
        """Return an integer within bounds; a boolean is not one."""
        value = self._members.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise self._invalid(name)
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean; False when absent."""
        value = self._members.get(name, False)
        if not isinstance(value, bool):
            raise self._invalid(name)
        return value

    def amount(self, name: str) -> float | None:
        """Return a finite number that is not negative; None when absent."""
        value = self._members.get(name, _ABSENT)
        if value is _ABSENT:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._invalid(name)
        if not 0 <= value <= _MAX_NUMBER:  # NaN compares false
            raise self._invalid(name)
        return value

    def optional(self, name: str) -> Any:
        """Return a member as it came, or None."""
        return self._members.get(name)

    def _invalid(self, name: str) -> MalformedMessageError:
        what = "without" if name not in self._members else "with an invalid"
        return MalformedMessageError(f"a {self._tag!r} {what} {name}")


def _read_object(tag: bytes, payload: bytes) -> JsonObject:
    if len(payload) > MAX_JSON_BYTES:
        raise MalformedMessageError(f"{len(payload)} bytes of JSON in a {tag!r}")
    try:
        check_depth(payload, _MAX_DEPTH)
        value = json.loads(payload)
    except (ValueError, RecursionError, ProtocolError) as error:
        raise MalformedMessageError(f"a {tag!r} that is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedMessageError(f"a {tag!r} that is not a JSON object")
    return value


def _read_hello(fields: _Fields) -> GuestHello:
    return GuestHello(
        fields.integer("version", 0, _MAX_NUMBER), fields.integer("threads", 0, 2**22), fields.integer("uid", 0, 2**32 - 1)
    )


def _read_unfit(fields: _Fields) -> GuestUnfit:
    return GuestUnfit(fields.text("message", MAX_JSON_BYTES)[:_MESSAGE_CHARACTERS])


def _read_unreadable(fields: _Fields) -> TableUnreadable:
    return TableUnreadable(fields.text("asset_id", _REASON_CHARACTERS), fields.text("message", _MESSAGE_CHARACTERS))


def _read_script_ended(fields: _Fields) -> ScriptEnded:
    status = None if fields.optional("exit") is None else fields.integer("exit", -64, 255)
    usage = {name: value for name in ("cpu_seconds", "peak_bytes", "load_seconds") if (value := fields.amount(name)) is not None}
    return ScriptEnded(
        exit_status=status,
        reported_error=parse_reported_error(fields.optional("error")),
        too_much_output=fields.flag("output"),
        out_of_memory=fields.flag("memory"),
        disk_full=fields.flag("disk_full"),
        usage=usage,
    )


def _read_refused(fields: _Fields) -> ArtifactRefused:
    return ArtifactRefused(fields.text("name", _NAME_CHARACTERS)[:_REASON_CHARACTERS], fields.text("reason", _REASON_CHARACTERS))


def _read_artifact(fields: _Fields) -> ArtifactBegins:
    return ArtifactBegins(fields.name("name"), fields.integer("size", 0, _MAX_NUMBER))


def parse_reported_error(report: object) -> ReportedError:
    """Parse the report of the script's process, which may be anything: invalid parts are dropped."""
    if not isinstance(report, str):
        return ReportedError()
    try:
        check_depth(report.encode("utf-8", "replace"), _MAX_DEPTH)
        value = json.loads(report)
    except (ValueError, RecursionError, ProtocolError):
        return ReportedError()
    if not isinstance(value, dict):
        return ReportedError()
    kind, line, message = value.get("type"), value.get("line"), value.get("message")
    error = None
    if isinstance(kind, str) and isinstance(message, str):
        counted = isinstance(line, int) and not isinstance(line, bool) and 1 <= line <= _MAX_LINE
        error = ScriptError(
            type=printable(kind, limit=_TYPE_CHARACTERS),
            line=line if counted else None,
            message=printable(message, limit=_MESSAGE_CHARACTERS, newlines=True),
        )
    number = value.get("errno")
    errno = number if isinstance(number, str) and number in REPORTABLE_ERRNOS else None
    return ReportedError(error, errno, out_of_memory=value.get("memory") is True)


def is_finite(progress: GuestProgress) -> bool:
    """Whether both numbers of a progress report are finite, so that it can be shown."""
    return math.isfinite(progress.done) and math.isfinite(progress.total)


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_BYTE_READERS: Final[dict[bytes, Callable[[bytes], GuestMessage]]] = {
    packets.WRITTEN: GuestOutput,
    packets.BYTES: ArtifactBytes,
    packets.TABLE: ConversionReport,
}
_EMPTY_MESSAGES: Final[dict[bytes, Callable[[], GuestMessage]]] = {packets.STARTED: ScriptStarted, packets.DONE: AllSent}
_OBJECT_READERS: Final[dict[bytes, Callable[[_Fields], GuestMessage]]] = {
    packets.HELLO: _read_hello,
    packets.UNFIT: _read_unfit,
    packets.UNREADABLE: _read_unreadable,
    packets.ENDED: _read_script_ended,
    packets.REFUSED: _read_refused,
    packets.FILE: _read_artifact,
}
