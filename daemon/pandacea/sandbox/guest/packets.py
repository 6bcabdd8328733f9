"""Packets between the node and one guest, over one SOCK_SEQPACKET socket.

A packet is one tag byte and at most `MAX_PAYLOAD` bytes. The kernel keeps the borders between packets, so no length can be forged and no
packet arrives in parts. Descriptors travel only from node to guest, one per packet. The kernel drops whatever descriptor a guest
attaches, because the node receives without room for it.
"""

from __future__ import annotations

import array
import json
import os
import platform
import socket
import struct
from collections.abc import Iterable
from typing import Any, Final

JsonObject = dict[str, Any]
"""What a packet of JSON holds. The guest has this name of its own: it runs without the rest of the node."""
MAX_PAYLOAD: Final = 65_536
"""Bytes that follow a tag."""
VERSION: Final = 1
PROGRESS_PAIR: Final = struct.Struct(">dd")
"""A report of progress: done, total."""

# node -> guest
JOB: Final = b"J"  # JSON: kind, seed, threads, caps
INPUT: Final = b"I"  # JSON about one table + its descriptor
UPLOAD: Final = b"U"  # JSON about one upload + its descriptor
OUTPUT_FILE: Final = b"W"  # JSON + a descriptor open for writing (conversion)
PARAMS: Final = b"A"  # a piece of the params' JSON text
CODE: Final = b"S"  # a piece of the script
GO: Final = b"G"  # nothing more follows
FORK: Final = b"N"  # to a zygote: JSON about a sandbox + its socket + files to enter its control groups

# guest -> node
UNFIT: Final = b"Q"  # JSON: why this guest cannot start
HELLO: Final = b"H"  # JSON: version, threads, uid
UNREADABLE: Final = b"D"  # JSON: the asset that is not a table; before any code ran
STARTED: Final = b"C"  # the script's first byte was taken
WRITTEN: Final = b"O"  # stdout and stderr as they come
PROGRESS: Final = b"P"  # PROGRESS_PAIR
ENDED: Final = b"X"  # JSON: how the script ended
REFUSED: Final = b"R"  # JSON: a file that may not leave, and why
FILE: Final = b"F"  # JSON: name and size; its bytes follow
BYTES: Final = b"B"  # a piece of the current file
TABLE: Final = b"T"  # a piece of a conversion's JSON report
DONE: Final = b"Z"  # everything has been sent


def hello_message(threads: int, uid: int) -> JsonObject:
    """Return a guest's first message. The node refuses a guest with more than one thread, because a fork copies only one."""
    return {"version": VERSION, "threads": threads, "uid": uid, "pid": os.getpid(), "python": platform.python_version()}


def send(sock: socket.socket, tag: bytes, payload: bytes | memoryview = b"") -> None:
    """Send one packet; blocks while the other side is slow."""
    sock.sendmsg((tag, payload))


def send_json(sock: socket.socket, tag: bytes, value: JsonObject) -> None:
    """Send one packet of JSON."""
    send(sock, tag, json.dumps(value).encode("utf-8", "backslashreplace"))


def receive(sock: socket.socket) -> tuple[bytes, bytes, int | None]:
    """Receive one packet in the guest: tag, payload, and a descriptor when one came. An empty tag means that the node is gone."""
    data, ancillary, _, _ = sock.recvmsg(MAX_PAYLOAD + 1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    descriptors = received_descriptors(ancillary)
    return data[:1], data[1:], descriptors[0] if descriptors else None


def received_descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors in the ancillary data of recvmsg(2)."""
    return [
        descriptor
        for level, kind, value in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for descriptor in array.array("i", value[: len(value) // 4 * 4])
    ]
