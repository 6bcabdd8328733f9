"""A whole node whose rows are on a PostgreSQL server: work, kill -9, the server's own restarts, and a second node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.journeys.conftest import INPUTS, System, pandacea, system
from tests.postgres import PASSWORD, PostgresServer
from tests.prerequisites import free_port

SCRIPT = "print(len(features), 'rows')\nopen('kept.txt', 'w').write('kept')"


@pytest.fixture
def served(tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """A running node; the password comes from the environment."""
    name = asyncio.run(postgres.create_empty_database())
    monkeypatch.setenv("PANDACEA_STORE__PASSWORD", PASSWORD)
    with system(tmp_path / "node", "bubblewrap", store={"url": postgres.url(name, password=False)}) as built:
        built.start()
        yield built
    asyncio.run(postgres.drop_database(name))


def test_work_is_done_kept_and_never_done_twice(served: System, postgres: PostgresServer, tmp_path: Path) -> None:
    """Through kill -9 and the server's own absence, by one node at a time, which says 503 meanwhile and the password never."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    lease = served.lease()
    client = served.client()
    first = client.execute_computation(lease, script, INPUTS)
    assert first["success"]
    assert first["results"]["output"] == "200 rows\n"

    served.stop(kill=True)
    served.start()
    assert client.result(first["computation_id"])["results"] == first["results"]
    assert client.lease(lease)["used"] == 1

    served.config["store"] = {**served.config["store"], "state_dir": str(tmp_path / "other-state")}
    other = tmp_path / "node" / "other.yaml"
    other.write_text(json.dumps({**served.config, "server": {**served.config["server"], "port": free_port()}}))
    refused = pandacea("run", "--config", str(other))
    assert refused.returncode == 1
    assert "Another node runs on postgresql+asyncpg://pandacea" in refused.stderr
    listed = pandacea("leases", "--json", "--config", str(served.folder / "config.yaml"))
    assert [row["used"] for row in json.loads(listed.stdout)] == [1], listed.stderr

    assert served.node is not None
    process = served.node.pid
    postgres.stop()
    try:
        served.until(lambda: served.get("/readyz")[0] == 503, "ready without its database")
        assert "does not answer" in served.get("/readyz")[1]["database"]
        path = f"/api/v1/leases/{lease}"
        status, problem, headers = served.get(path, client.sign("GET", path))
        assert (status, problem["code"]) == (503, "unavailable")
        assert int(headers["Retry-After"]) > 0
    finally:
        postgres.start()
    served.until(lambda: served.get("/readyz")[0] == 200, "not ready again")
    assert client.execute_computation(lease, script, INPUTS)["success"]
    assert client.lease(lease)["used"] == 2
    assert served.node.poll() is None
    assert served.node.pid == process
    for text in (served.log(), refused.stderr, listed.stderr):
        assert PASSWORD not in text
        assert quote(PASSWORD, safe="") not in text
