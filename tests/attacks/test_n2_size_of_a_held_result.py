"""Anybody asks /readyz for the free bytes of the disk and so sees when a held run ends, and how large its result is.

A script that makes its artifact as large as a secret says so tells fifteen bits a run, past the Earner, to whoever asks, without a key.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pandacea.app.http_api import _readiness
from pandacea.domain.limits import MIB, Limits
from pandacea.flows.result_store import ResultStore

SECRET_MIB = 8


def told(shelf: ResultStore) -> dict[str, Any]:
    """What GET /readyz says; everything else of the node is well."""
    standing = SimpleNamespace(trusted=True, distrust=None, head_number=7, confident=7)
    core: Any = SimpleNamespace(
        follower=SimpleNamespace(book=SimpleNamespace(standing=lambda: standing)),
        database=SimpleNamespace(trouble=None),
        sandbox=SimpleNamespace(pool=SimpleNamespace(trouble=None)),
        identity=SimpleNamespace(kind="stage"),
    )
    workers: Any = SimpleNamespace(trouble=lambda _limit: None, stopping=False)
    submit: Any = SimpleNamespace(limits=Limits(), shelf=shelf)
    background: Any = SimpleNamespace(ended=None)
    found = _readiness(core, submit, workers, background)
    return {"ready": found.ready, **found.parts}


def test_a_result_that_lands_on_the_disk_changes_no_answer(tmp_path: Path) -> None:
    """As it was played: asked before and after a result was stored."""
    shelf = ResultStore(tmp_path, max_bytes=1 << 40)
    before = told(shelf)
    with (tmp_path / "0").open("wb") as artifact:
        artifact.write(bytes(SECRET_MIB * MIB))
        artifact.flush()
        os.fsync(artifact.fileno())
    assert told(shelf) == before


def test_a_disk_that_is_nearly_full_says_so_without_a_figure(tmp_path: Path) -> None:
    """Nor where it stands: the operator has the log and the metrics, which are on loopback."""
    free = deque([100 * MIB, (100 - SECRET_MIB) * MIB])
    shelf = ResultStore(tmp_path, max_bytes=1 << 40, free_bytes=lambda _: free.popleft())
    first, second = told(shelf), told(shelf)
    assert first == second
    assert not first["ready"]
    assert str(tmp_path) not in first["results"]
