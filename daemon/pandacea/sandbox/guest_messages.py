"""Everything a guest says, read into typed records: each field checked, bounded and printable, before anything acts on it.

A guest is a stranger's process: its supervisor is not believed either. What does not fit ends the conversation. The script's own last
word about its exception is hearsay twice over, so what does not fit there is left out, and the run ends as its exit status says.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pandacea.domain.outcome import ScriptError
from pandacea.domain.printable import printable
from pandacea.sandbox.guest import packets
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.strict_json import check_depth

MAX_JSON_BYTES: Final = 32_768
DISK_FULL_ERRNOS: Final = frozenset({"ENOSPC", "EDQUOT", "EFBIG"})
"""What an OSError of a script says when its folders are full."""
REPORTABLE_ERRNOS: Final = DISK_FULL_ERRNOS | {"EAGAIN"}
"""The errno names that explain a failure; any other explains nothing and is dropped."""
_PROGRESS: Final = struct.Struct(">dd")
_TYPE_CHARACTERS: Final = 100
_MESSAGE_CHARACTERS: Final = 2000
_NAME_CHARACTERS: Final = 8192
_REASON_CHARACTERS: Final = 300
_MAX_LINE: Final = 1_000_000
_MAX_NUMBER: Final = 2**53
_MAX_DEPTH: Final = 8
_ABSENT: Final = object()


class MalformedMessageError(Exception):
    """A guest sent what is no message of ours. The text is the node's own words, never the guest's."""


@dataclass(frozen=True, slots=True)
class GuestHello:
    """A guest is ready for its job."""

    version: int
    threads: int
    uid: int


@dataclass(frozen=True, slots=True)
class GuestUnfit:
    """A guest cannot start."""

    message: str


@dataclass(frozen=True, slots=True)
class TableUnreadable:
    """An asset is no table; no code of the script ran."""

    asset_id: str
    message: str


@dataclass(frozen=True, slots=True)
class ScriptStarted:
    """The guest took the script's first byte."""


@dataclass(frozen=True, slots=True)
class GuestOutput:
    """Bytes of stdout or stderr."""

    data: bytes


@dataclass(frozen=True, slots=True)
class GuestProgress:
    """Any two doubles, infinities and NaN among them."""

    done: float
    total: float


@dataclass(frozen=True, slots=True)
class ReportedError:
    """What the script's process said of its own exception."""

    error: ScriptError | None = None
    errno: str | None = None
    """One of `TOLD_ERRORS`."""
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class ScriptEnded:
    """How the script ended, as its supervisor saw it."""

    exit_status: int | None
    """As a shell shows it; negative: the signal."""
    reported_error: ReportedError
    too_much_output: bool
    out_of_memory: bool
    disk_full: bool
    usage: Mapping[str, float]
    """Of `cpu_seconds`, `peak_bytes`, `load_seconds` those it knows."""


@dataclass(frozen=True, slots=True)
class ArtifactRefused:
    """A file may not leave, so none does."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ArtifactBegins:
    """A file of `size` bytes follows; its name is not checked yet."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class ArtifactBytes:
    """A piece of the current file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """A piece of a conversion's JSON account."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AllSent:
    """Nothing more follows."""


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
    """Read one packet.

    Raises:
        MalformedMessageError: it is none of the protocol's, or a field is missing, of another type, or out of bounds.
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
        if len(payload) != _PROGRESS.size:
            raise MalformedMessageError(f"progress of {len(payload)} bytes")
        return GuestProgress(*_PROGRESS.unpack(payload))
    reader = _OBJECT_READERS.get(tag)
    if reader is None:
        raise MalformedMessageError(f"an unknown tag {tag!r}")
    return reader(_Fields(tag, _read_object(tag, payload)))


class _Fields:
    """Typed access to one JSON object of a guest."""

    def __init__(self, tag: bytes, members: dict[str, Any]) -> None:
        self._tag, self._members = tag, members

    def text(self, name: str, limit: int) -> str:
        """A string of at most `limit` characters, made printable."""
        value = self._members.get(name)
        if not isinstance(value, str) or len(value) > limit:
            raise self._unfit(name)
        return printable(value, limit=limit)

    def name(self, name: str) -> str:
        """A string as it came, for a check of its own; free of surrogates, so that it can be encoded."""
        value = self._members.get(name)
        if not isinstance(value, str) or len(value) > _NAME_CHARACTERS or not _encodes(value):
            raise self._unfit(name)
        return value

    def integer(self, name: str, lowest: int, highest: int) -> int:
        """A whole number within bounds; True is none."""
        value = self._members.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise self._unfit(name)
        return value

    def flag(self, name: str) -> bool:
        """A boolean; absent: False."""
        value = self._members.get(name, False)
        if not isinstance(value, bool):
            raise self._unfit(name)
        return value

    def amount(self, name: str) -> float | None:
        """A finite number from 0 on; absent: None."""
        value = self._members.get(name, _ABSENT)
        if value is _ABSENT:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._unfit(name)
        if not 0 <= value <= _MAX_NUMBER:  # NaN compares false
            raise self._unfit(name)
        return value

    def optional(self, name: str) -> Any:
        """A member as it came, or None."""
        return self._members.get(name)

    def _unfit(self, name: str) -> MalformedMessageError:
        what = "without" if name not in self._members else "with an unfit"
        return MalformedMessageError(f"a {self._tag!r} {what} {name}")


def _read_object(tag: bytes, payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_JSON_BYTES:
        raise MalformedMessageError(f"{len(payload)} bytes of JSON in a {tag!r}")
    try:
        check_depth(payload, _MAX_DEPTH)
        value = json.loads(payload)
    except (ValueError, RecursionError, ProtocolError) as error:
        raise MalformedMessageError(f"a {tag!r} that is no JSON") from error
    if not isinstance(value, dict):
        raise MalformedMessageError(f"a {tag!r} that is no JSON object")
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


def parse_reported_error(told: object) -> ReportedError:
    """Read the last word of the script's process, which may be anything: what does not fit is left out."""
    if not isinstance(told, str):
        return ReportedError()
    try:
        check_depth(told.encode("utf-8", "replace"), _MAX_DEPTH)
        value = json.loads(told)
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
    """Whether a report of progress can be shown at all."""
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
