"""An open-loop load generator over raw sockets: each request is sent at its due time, whatever became of those before it.

It shares the machine with the server it measures, so it does next to nothing for a request: bytes made beforehand, one send, one
receive, a check of the status. What it is late by (a millisecond, epoll's resolution) counts as the server's.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Sequence
from typing import Final

CONNECTIONS: Final = 256
"""Connections at most; the time a request waits for a free one counts as its latency."""
_LENGTH: Final = re.compile(rb"Content-Length: (\d+)")


class _Connection:
    """A pooled connection and the request in progress on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.received = b""

    def answered(self) -> bool:
        """Receive what has arrived; returns whether the answer is complete."""
        self.received += self.socket.recv(65536)
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank:
            return False
        length = _LENGTH.search(head)
        assert length is not None, head
        return len(body) >= int(length[1])


def open_loop(port: int, requests: Sequence[bytes], per_second: float, status: bytes) -> list[float]:
    """Send all requests at a fixed rate; returns the seconds from each one's due time to its whole answer, sorted.

    Every answer must have `status` (as in b"403").
    """
    epoll = select.epoll()
    every: dict[int, _Connection] = {}
    idle: list[_Connection] = []
    taken: list[float] = []
    waiting = list(reversed(requests))
    start, sent = time.perf_counter() + 0.1, 0
    while len(taken) < len(requests):
        now = time.perf_counter()
        while waiting and (due := start + sent / per_second) <= now and (idle or len(every) < CONNECTIONS):
            if not idle:
                made = _Connection(port)
                every[made.socket.fileno()] = made
                epoll.register(made.socket.fileno(), select.EPOLLIN)
                idle.append(made)
            connection = idle.pop()
            connection.due, connection.received = due, b""
            connection.socket.sendall(waiting.pop())
            sent += 1
        due = start + sent / per_second
        pause = max(due - time.perf_counter(), 0) if waiting and (idle or len(every) < CONNECTIONS) else 1
        for descriptor, _ in epoll.poll(pause):
            connection = every[descriptor]
            if connection.answered():
                taken.append(time.perf_counter() - connection.due)
                assert connection.received[9:12] == status, connection.received
                idle.append(connection)
    for connection in every.values():
        connection.socket.close()
    epoll.close()
    return sorted(taken)
