"""A child process of the node carries the node's environment, and with it a passphrase, where others may come to read it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandacea.sandbox.bubblewrap.namespaces import probe_namespaces
from pandacea.sandbox.readonly_open import ReadOnlyHelper
from tests.prerequisites import find_program

SECRET = "correct-horse-battery-staple"


@pytest.fixture(autouse=True)
def _passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDACEA_KEYSTORE_PASSPHRASE", SECRET)


@pytest.fixture
def opener() -> Iterator[ReadOnlyHelper]:
    """The helper that opens files, as a plain user's node starts it."""
    find_program("bwrap", "bubblewrap")
    made = ReadOnlyHelper()
    yield made
    made.close()


def test_the_read_only_opener_has_none_of_it(opener: ReadOnlyHelper) -> None:
    """Neither bubblewrap nor the helper in it."""
    os.close(opener.open(Path(__file__)))  # it answers, so both processes are there
    found = [Path("/proc", str(pid), "environ").read_bytes() for pid in _family(opener._process.pid)]
    assert len(found) >= 2
    assert all(SECRET.encode() not in one for one in found)


async def test_the_namespace_probe_has_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `bwrap` is on the path sees no secret."""
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\nenv > {tmp_path / 'seen'}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    await probe_namespaces()
    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen
    assert SECRET not in seen


def _family(pid: int) -> list[int]:
    """A process and its descendants, once there are any."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = [pid]
        for one in found:
            found += [int(word) for word in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        if len(found) > 1:
            return found
    raise AssertionError("it has no child")
