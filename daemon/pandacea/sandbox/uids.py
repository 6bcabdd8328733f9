"""Gives each live sandbox instance a kernel uid of its own, so that two instances never share a budget that the kernel keeps by user.

Pipe pages, epoll watches, pending signals, processes, keyrings: two instances of one uid could see in such a budget what the other does.
"""

from __future__ import annotations

import errno
import grp
import pwd
import secrets
import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pandacea.errors import Broken, Unavailable

UID_COUNT: Final = 1024
"""Number of uids (and of groups with the same numbers) in the range: far more than instances live at once."""

_CLAIM_NAME: Final = "\0org.pandacea.uid.{}"
_SUBORDINATE_FILES: Final = (Path("/etc/subuid"), Path("/etc/subgid"))
_UID_MAP: Final = Path("/proc/self/uid_map")


class InstanceUid:
    """One uid, claimed for one instance."""

    def __init__(self, number: int, claim: socket.socket) -> None:
        self.number = number
        self._claim = claim

    def release(self) -> None:
        """Release the claim; call it only when no process of the instance is left. Idempotent."""
        self._claim.close()


class UidRange:
    """Hands out the uids from `base` to `base + UID_COUNT - 1`.

    A claim is an abstract Unix socket named after the uid: every node of the machine sees it, and it ends with the process that made it.
    The order is random, because a script sees its own uid, and rising numbers would tell it how many instances ran before.
    """

    def __init__(self, base: int) -> None:
        self.numbers = range(base, base + UID_COUNT)
        order = list(self.numbers)
        secrets.SystemRandom().shuffle(order)
        self._order = deque(order)

    def claim(self) -> InstanceUid:
        """Claim a uid that no instance on this machine has. Raises Unavailable when there is none."""
        for _ in self.numbers:
            number = self._order[0]
            self._order.rotate(-1)  # to the end: what an instance leaves with the kernel is gone long before its uid is used again
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                sock.bind(_CLAIM_NAME.format(number))
            except OSError as error:
                sock.close()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return InstanceUid(number, sock)
        raise Unavailable(
            f"each of the {UID_COUNT} uids from {self.numbers.start} on belongs to a live sandbox; do other nodes still run?"
        )

    def require_unused(self) -> None:
        """Raise Broken if a user, group or subordinate range of this machine has one of the numbers, or the user namespace lacks one."""
        first, last = self.numbers.start, self.numbers[-1]
        clash = next(_find_clashes(self.numbers), None)
        if clash is not None:
            raise Broken(
                f"sandboxes run as uids and groups {first} to {last}, and {clash} is among them: a script could read and change that "
                f"user's files. Set privacy.uid_base to the first of {UID_COUNT} numbers that nobody has"
            )
        if not _is_mapped(self.numbers, _UID_MAP.read_text(encoding="ascii")):
            raise Broken(
                f"sandboxes run as uids {first} to {last}, which this user namespace does not have (/proc/self/uid_map); "
                f"set privacy.uid_base to the first of {UID_COUNT} numbers that it has"
            )


def _find_clashes(numbers: range) -> Iterator[str]:
    yield from (f"the user {user.pw_name!r} ({user.pw_uid})" for user in pwd.getpwall() if user.pw_uid in numbers)
    yield from (f"the group {group.gr_name!r} ({group.gr_gid})" for group in grp.getgrall() if group.gr_gid in numbers)
    yield from (f"{line!r} in {path}" for path in _SUBORDINATE_FILES for line in _find_subordinate_clashes(path, numbers))


def _find_subordinate_clashes(path: Path, numbers: range) -> list[str]:
    """Return the lines of subuid(5) whose range overlaps `numbers`."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []  # the file is missing: nobody has subordinate ids
    found = []
    for line in lines:
        parts = line.strip().split(":")
        if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
            start, count = int(parts[1]), int(parts[2])
            if start < numbers.stop and numbers.start < start + count:
                found.append(line.strip())
    return found


def _is_mapped(numbers: range, uid_map: str) -> bool:
    ranges = [[int(word) for word in line.split()] for line in uid_map.splitlines()]
    return any(inner <= numbers.start and numbers.stop <= inner + count for inner, _, count in ranges)
