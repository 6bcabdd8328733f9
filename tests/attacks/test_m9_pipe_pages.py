"""Two scripts that run at once signal to each other through the pages that the kernel lets one uid have in pipes.

One opens two thousand pipes, or does not; the other makes a pipe of its own and sees how much it holds.
"""

from __future__ import annotations

import asyncio
import grp
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from pandacea.errors import Broken, Unavailable
from pandacea.flows.ports import OutputWritten, SandboxEvent
from pandacea.sandbox import uids
from pandacea.sandbox.settings import GUEST_UID
from pandacea.sandbox.uids import UID_COUNT, UidRange
from tests.attacks.boxes import environment, image, laboratory
from tests.sandbox.harness import LIMITS, Laboratory

__all__ = ["environment", "image", "laboratory"]

SENDER = """
import os, time
print(os.getuid(), flush=True)
for _ in range(4):
    if os.fork() == 0:
        kept = [os.pipe() for _ in range(500)]
        print("full", flush=True)
        time.sleep(50)
time.sleep(50)
"""
READER = """
import fcntl, os
read, write = os.pipe()
os.set_blocking(write, False)
held = 0
try:
    while True:
        held += os.write(write, bytes(4096))
except BlockingIOError:
    pass
try:
    told = fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)
except OSError:
    told = None
print(held, told, os.getuid())
"""


@pytest.mark.asyncio(loop_scope="module")
async def test_a_full_neighbour_is_not_felt(laboratory: Laboratory) -> None:
    """The reader's pipe is as large beside a sender that holds two thousand pipes as it is alone, and nothing tells its size."""
    alone = (await laboratory.run(READER)).output.split()
    said = bytearray()
    full = asyncio.Event()

    def hear(event: SandboxEvent) -> None:
        if isinstance(event, OutputWritten):
            said.extend(event.data)
            if said.count(b"full") == 4:
                full.set()

    job = laboratory.job(SENDER, limits=replace(LIMITS, time_seconds=50.0))
    sender = asyncio.create_task(laboratory.sandbox.run_job(job, hear))
    try:
        async with asyncio.timeout(40):
            await full.wait()
        beside = (await laboratory.run(READER)).output.split()
    finally:
        sender.cancel()
        await asyncio.wait({sender})
    assert alone[:2] == beside[:2] == [b"65536", b"None"]
    assert len({alone[2], beside[2], bytes(said).split()[0]}) == 3, "each has a uid of its own"


def test_no_two_boxes_of_a_machine_have_one_uid() -> None:
    """Whichever node made them; a uid that was given back is had again, and when all are taken no sandbox is made."""
    one, other = UidRange(300_000), UidRange(300_000)
    held = [maker.claim() for maker in (one, other) for _ in range(UID_COUNT // 2)]
    assert sorted(uid.number for uid in held) == list(one.numbers)
    with pytest.raises(Unavailable, match="from 300000 on"):
        one.claim()
    held[5].release()
    again = other.claim()
    assert again.number == held[5].number
    for uid in (*held, again):
        uid.release()


def test_uids_do_not_count_boxes() -> None:
    """A script that sees its uid does not learn how many sandboxes there were: the order is another one in each node."""
    orders = []
    for _ in range(2):
        claimed = [made.claim() for made in [UidRange(400_000)] for _ in range(20)]
        orders.append([uid.number for uid in claimed])
        for uid in claimed:
            uid.release()
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one user, one group and no subordinate numbers; the folder takes files as in /etc."""
    monkeypatch.setattr(pwd, "getpwall", lambda: [pwd.struct_passwd(("ada", "x", 20_500, 100, "", "/", "/bin/sh"))])
    monkeypatch.setattr(grp, "getgrall", lambda: [grp.struct_group(("clinic", "x", 30_500, []))])
    monkeypatch.setattr(uids, "_SUBORDINATE_FILES", (tmp_path / "subuid", tmp_path / "subgid"))
    monkeypatch.setattr(uids, "_UID_MAP", tmp_path / "uid_map")
    (tmp_path / "uid_map").write_text("         0          0 4294967295\n")
    return tmp_path


@pytest.mark.parametrize(
    ("base", "named"),
    [
        (20_000, r"the user 'ada' \(20500\)"),
        (30_500, r"the group 'clinic' \(30500\)"),
        (40_000, r"'ada:40500:65536' in .*subuid"),
        (110_000, r"'ada:109000:1001' in .*subgid"),
    ],
)
def test_numbers_that_somebody_has_are_refused(accounts: Path, base: int, named: str) -> None:
    """As a user, as a group, or as a subordinate range: scripts could reach what belongs to them."""
    (accounts / "subuid").write_text("# a comment\nada:40500:65536\n")
    (accounts / "subgid").write_text("ada:109000:1001\n")
    with pytest.raises(Broken, match=rf"{base} to {base + UID_COUNT - 1}, and {named} is among them.*privacy\.uid_base"):
        UidRange(base).require_unused()


def test_numbers_that_nobody_has_are_taken(accounts: Path) -> None:
    """The default range, on a machine whose users have other numbers and where no subordinate ones are given out."""
    UidRange(GUEST_UID).require_unused()


def test_numbers_that_a_user_namespace_lacks_are_refused(accounts: Path) -> None:
    """As root of a container with few uids, where a sandbox could not become one of them."""
    (accounts / "uid_map").write_text("         0     100000      65536\n")
    UidRange(GUEST_UID).require_unused()
    with pytest.raises(Broken, match=r"user namespace does not have"):
        UidRange(65_000).require_unused()
