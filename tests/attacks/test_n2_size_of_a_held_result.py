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
from pandacea.files.results import ResultStore

SECRET_MIB = 8


def told(store: ResultStore) -> dict[str, Any]:
    """What GET /readyz says; everything else of the node is well."""
    status = SimpleNamespace(is_ready=True, not_ready_reason=None, head_number=7, confident_block=7)
    adapters: Any = SimpleNamespace(
        follower=SimpleNamespace(lease_cache=SimpleNamespace(chain_status=lambda: status)),
        engine=SimpleNamespace(failure_reason=None),
        sandbox=SimpleNamespace(pool=SimpleNamespace(unavailable_reason=None)),
        identity=SimpleNamespace(kind="stage"),
    )
    workers: Any = SimpleNamespace(stuck_reason=lambda _limit: None, stopping=False)
    submit: Any = SimpleNamespace(limits=Limits(), results=store)
    supervisor: Any = SimpleNamespace(first_ended=None)
    watch: Any = SimpleNamespace(trouble=None)
    found = _readiness(adapters, submit, workers, watch, supervisor)
    return {"ready": found.ready, **found.parts}


def test_a_result_that_lands_on_the_disk_changes_no_answer(tmp_path: Path) -> None:
    """As it was played: asked before and after a result was stored."""
    store = ResultStore(tmp_path, max_bytes=1 << 40)
    before = told(store)
    with (tmp_path / "0").open("wb") as artifact:
        artifact.write(bytes(SECRET_MIB * MIB))
        artifact.flush()
        os.fsync(artifact.fileno())
    assert told(store) == before


def test_a_disk_that_is_nearly_full_says_so_without_a_figure(tmp_path: Path) -> None:
    """Nor where it stands: the operator has the log and the metrics, which are on loopback."""
    free = deque([100 * MIB, (100 - SECRET_MIB) * MIB])
    store = ResultStore(tmp_path, max_bytes=1 << 40, free_bytes=lambda _: free.popleft())
    first, second = told(store), told(store)
    assert first == second
    assert not first["ready"]
    assert str(tmp_path) not in first["results"]
