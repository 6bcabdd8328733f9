"""Artifacts are written as they came: holes stay holes, and announced bytes must arrive."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pandacea.domain.limits import MIB, Limits
from pandacea.sandbox.results import ArtifactRefusedError, ResultsWriter

PIECE = 65_536


def test_zeros_take_no_disk(tmp_path: Path) -> None:
    """A file of 64 MiB that took no memory in the sandbox takes no disk of the node either; its bytes and digest are whole."""
    writer = ResultsWriter(tmp_path, Limits())
    data = b"begin" + bytes(10 * PIECE) + b"middle" + bytes(16 * MIB)
    writer.begin_file("sparse", len(data))
    for start in range(0, len(data), PIECE):
        writer.write_bytes(data[start : start + PIECE])
    (artifact,) = writer.finish()
    assert artifact.path.read_bytes() == data
    assert (artifact.size, artifact.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert artifact.path.stat().st_blocks * 512 < 10 * PIECE


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    """A hole at the end is no substitute for bytes that never came."""
    writer = ResultsWriter(tmp_path, Limits())
    writer.begin_file("short", 2 * PIECE)
    writer.write_bytes(bytes(PIECE))
    with pytest.raises(ArtifactRefusedError, match="65536 announced bytes did not arrive"):
        writer.finish()
