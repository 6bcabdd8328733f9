"""Stream what the script left in /workspace to the node, file by file, when nothing but the supervisor is alive."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from typing import Final

from . import packets

WORKSPACE: Final = "/workspace"
UPLOADS: Final = "in"
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class _ArtifactRefusedError(Exception):
    def __init__(self, name: bytes, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(reason)


def stream_artifacts(sock: socket.socket, caps: dict[str, int]) -> None:
    """Send every regular file, or one REFUSED packet that names the first file that may not leave.

    Names and sizes are checked before the first byte is sent, so nothing of a refused result leaves.
    """
    try:
        files = sorted(_walk(WORKSPACE.encode(), b"", 0, caps))
        if len(files) > caps["artifact_count"]:
            raise _ArtifactRefusedError(
                files[caps["artifact_count"]][0], f"more than artifact_count={caps['artifact_count']} files"
            )
        total = 0
        for name, size in files:
            total += size
            if total > caps["artifacts_bytes"]:
                raise _ArtifactRefusedError(name, f"the files together exceed artifacts_bytes={caps['artifacts_bytes']}")
        for name, _ in files:
            _check_readable(name)
    except _ArtifactRefusedError as refused:
        packets.send_json(sock, packets.REFUSED, {"name": _printable_name(refused.name), "reason": refused.reason})
        return
    for name, size in files:
        packets.send_json(sock, packets.FILE, {"name": name.decode(), "size": size})
        _stream_file(sock, WORKSPACE.encode() + b"/" + name, size)


def _walk(folder: bytes, prefix: bytes, depth: int, caps: dict[str, int]) -> Iterator[tuple[bytes, int]]:
    try:
        listing = os.scandir(folder)
    except OSError as error:
        raise _ArtifactRefusedError(prefix or b".", f"the folder cannot be read: {error.strerror}") from error
    with listing as entries:
        for seen, entry in enumerate(entries):
            name = prefix + entry.name
            if seen > 10 * caps["artifact_count"] + 100:
                raise _ArtifactRefusedError(name, f"more than artifact_count={caps['artifact_count']} files")
            if name == UPLOADS.encode():
                continue
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                if depth + 1 >= caps["artifact_depth"]:
                    raise _ArtifactRefusedError(name, f"folders nest deeper than artifact_depth={caps['artifact_depth']}")
                yield from _walk(folder + b"/" + entry.name, name + b"/", depth + 1, caps)
            else:
                yield name, _check_file(name, found, caps)


def _check_file(name: bytes, found: os.stat_result, caps: dict[str, int]) -> int:
    if not stat.S_ISREG(found.st_mode):
        raise _ArtifactRefusedError(name, f"a {_kind_of_file(found.st_mode)} is not a regular file")
    if found.st_nlink != 1:
        raise _ArtifactRefusedError(name, "it has more than one hard link")
    if found.st_size > caps["artifact_bytes"]:
        raise _ArtifactRefusedError(name, f"{found.st_size} bytes exceed artifact_bytes={caps['artifact_bytes']}")
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        raise _ArtifactRefusedError(name, "its name is not UTF-8") from None
    return found.st_size


def _check_readable(name: bytes) -> None:
    try:
        os.close(os.open(WORKSPACE.encode() + b"/" + name, _OPEN))
    except OSError as error:
        raise _ArtifactRefusedError(name, f"it cannot be read: {error.strerror}") from error


def _kind_of_file(mode: int) -> str:
    for test, word in (
        (stat.S_ISLNK, "symbolic link"),
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISCHR, "character device"),
        (stat.S_ISBLK, "block device"),
    ):
        if test(mode):
            return word
    return "special file"


def _printable_name(name: bytes) -> str:
    return name[:300].decode("utf-8", "backslashreplace")


def _stream_file(sock: socket.socket, path: bytes, size: int) -> None:
    descriptor = os.open(path, _OPEN)
    try:
        buffer = memoryview(bytearray(packets.MAX_PAYLOAD))
        left = size
        while left > 0:
            count = os.readv(descriptor, [buffer[: min(left, packets.MAX_PAYLOAD)]])
            if count == 0:
                break  # it shrank, which cannot happen with no other process alive; the node notices
            packets.send(sock, packets.BYTES, buffer[:count])
            left -= count
    finally:
        os.close(descriptor)


def is_disk_full() -> bool:
    """Whether one of the script's folders is full, which may explain a failure whose exception does not say so."""
    found = [os.statvfs(folder) for folder in (WORKSPACE, "/tmp")]
    return any(one.f_bavail == 0 or one.f_favail == 0 for one in found)
