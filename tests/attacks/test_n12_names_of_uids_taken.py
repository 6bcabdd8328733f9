"""A local user binds the names under which boxes' uids are claimed, all of them, and no box is made any more.

Abstract sockets belong to whoever binds them first: a thousand of them are one short program of any user.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from pandacea.errors import Unavailable
from pandacea.sandbox import uids
from pandacea.sandbox.uids import UidRange

BASE, UIDS = 500_000, 32


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every name of a short range, bound by somebody who has no process of these uids."""
    monkeypatch.setattr(uids, "UID_COUNT", UIDS)
    with ExitStack() as stack:
        for number in range(BASE, BASE + UIDS):
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(uids._CLAIM_NAME.format(number))
        yield


@pytest.mark.usefixtures("taken")
def test_names_alone_keep_no_uid_from_a_box() -> None:
    """As it was played: uids that no process has are handed out all the same, each once, and again when it is let go."""
    made = UidRange(BASE)
    claimed = [made.claim() for _ in range(20)]
    assert len({uid.number for uid in claimed}) == 20
    claimed[0].release()
    rest = [made.claim() for _ in range(UIDS - 19)]
    assert claimed[0].number in {uid.number for uid in rest}
    with pytest.raises(Unavailable, match="belongs to a live sandbox"):
        made.claim()


@pytest.mark.usefixtures("taken")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a process of another uid")
def test_a_uid_that_a_process_has_is_handed_to_nobody() -> None:
    """A box of another node lives: its uid is told by its processes, whoever holds the names."""
    with subprocess.Popen(["sleep", "60"], user=BASE + 7, stdout=subprocess.DEVNULL) as lives:
        made = UidRange(BASE)
        handed = []
        with suppress(Unavailable):
            while True:
                handed.append(made.claim().number)
        lives.kill()
    assert sorted(handed) == [number for number in made.numbers if number != BASE + 7]
