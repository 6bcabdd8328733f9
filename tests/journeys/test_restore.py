"""The database of an hour ago, put back as docs/operating.md says: nothing of it runs or is signed a second time."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from pandacea_sdk.chain import LeaseChain
from tests.journeys.conftest import INPUTS, System, system

LONG = "import time\ntime.sleep(4)\nprint('first')"
SHORT = "print('second')"


def jobs(built: System) -> list[dict[str, Any]]:
    """The rows of the jobs, oldest first."""
    path = built.folder / "state" / "pandacea.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(found) for found in database.execute("SELECT * FROM job ORDER BY created_at")]


def test_a_backup_with_a_waiting_job_put_back_after_both_ended_runs_neither_again(tmp_path: Path) -> None:
    """A runs and B waits at the backup; both end and are committed; the backup is put back: B does not run, and B's lease stays whole."""
    folder = tmp_path / "node"
    with system(folder, "bubblewrap", privacy={"workers": 1}, settlement={"post_results": True}) as built:
        state = built.folder / "state"
        built.start()
        lease = built.lease()
        scripts = [folder / "long.py", folder / "short.py"]
        for path, text in zip(scripts, (LONG, SHORT), strict=True):
            path.write_text(text)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(built.client().execute_computation, lease, scripts[0], INPUTS)
            built.until(lambda: [job["state"] for job in jobs(built)] == ["running"], "the first does not run")
            second = pool.submit(built.client().execute_computation, lease, scripts[1], INPUTS)
            built.until(lambda: [job["state"] for job in jobs(built)] == ["running", "pending"], "the second does not wait")
            with closing(sqlite3.connect(state / "pandacea.db")) as live, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
                live.backup(copy)
            answers = [first.result(60), second.result(60)]
        assert all(answer["success"] for answer in answers)
        for answer in answers:
            assert asyncio.run(_committed(built, lease, answer["computation_id"])) == answer["result_hash"]
        built.stop()

        for name in ("pandacea.db", "pandacea.db-wal", "pandacea.db-shm"):
            (state / name).unlink(missing_ok=True)
        (tmp_path / "copy.db").rename(state / "pandacea.db")
        built.start()
        kept = [(job["state"], job["failure"], job["charge"], json.loads(job["receipt"] or "null")) for job in jobs(built)]
        assert kept == [("failed", "interrupted", "returned", None)] * 2
        assert "database.put_back" in built.log()
        target = f"/api/v1/leases/{lease}"
        status, problem, headers = built.get(target, built.client().sign("GET", target))
        assert (status, problem["code"]) == (503, "unavailable")
        assert "put back from a backup" in problem["detail"]
        assert 0 < int(headers["Retry-After"]) <= 32
        assert all(job["attempt"] <= 1 for job in jobs(built))


async def _committed(built: System, lease: str, computation_id: str) -> str | None:
    async with LeaseChain(built.rpc_url, built.contract) as chain, asyncio.timeout(30):
        while (found := await chain.committed_result(lease, computation_id)) is None:
            await asyncio.sleep(0.1)
    return found
