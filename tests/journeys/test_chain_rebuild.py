"""`pandacea chain rebuild`: what was read of the chain is forgotten and read again; what was run and paid for stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.journeys.conftest import INPUTS, pandacea, system
from tests.journeys.test_acknowledging import relayed


def test_leases_are_read_again_and_what_was_charged_stays(tmp_path: Path) -> None:
    """Refused beside a running node; asks first; an acknowledgement is the one thing that is lost, and it says so."""
    folder = tmp_path / "node"
    with system(folder, "bubblewrap") as built:
        config = ("--config", str(folder / "config.yaml"))
        built.start()
        lease = built.lease()
        script = tmp_path / "script.py"
        script.write_text("print(1)")
        answer = built.client().execute_computation(lease, script, INPUTS)
        vouched = asyncio.run(relayed(built))
        built.until(lambda: pandacea("leases", "acknowledge", vouched, "--yes", *config).returncode == 0, "not acknowledged")
        running = pandacea("chain", "rebuild", "--yes", *config)
        assert running.returncode == 1
        assert "Another node runs on" in running.stderr
        built.stop()

        asked = pandacea("chain", "rebuild", *config, said="no\n")
        assert (asked.returncode, "Nothing was changed." in asked.stdout) == (1, True)
        assert "2 lease(s)" in asked.stdout
        assert "1 of them your own acknowledgements" in asked.stdout
        done = pandacea("chain", "rebuild", "--yes", *config)
        assert done.returncode == 0, done.stderr
        again = pandacea("chain", "rebuild", "--yes", *config)
        assert "has not followed the contract yet" in again.stderr

        built.start()
        client = built.client()
        assert client.lease(lease)["used"] == 1
        assert client.result(answer["computation_id"])["results"] == answer["results"]
        assert client.lease(vouched)["approval"] != "acknowledged"
