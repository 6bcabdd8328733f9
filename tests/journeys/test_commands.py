"""The command line as its user meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.conftest import ENVIRONMENT, system
from tests.parts import ROOT, free_port


def pandacea(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), **environment}
    command = [sys.executable, "-m", "pandacea", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=variables, timeout=120)


def test_a_wrong_key_in_the_configuration_is_one_clear_sentence(tmp_path: Path) -> None:
    """Exit status 2, the key, what is allowed; no traceback."""
    text = (ROOT / "config.yaml").read_text().replace("  port: 8080", "  prot: 8080")
    (tmp_path / "config.yaml").write_text(text)
    done = pandacea("run", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "server.prot is not a key; did you mean port?" in done.stderr


@pytest.mark.parametrize(
    ("section", "values", "status", "said"),
    [
        ("earner", {"keystore": "nowhere.json"}, 2, "nowhere.json does not exist"),
        ("privacy", {"environment": "nowhere"}, 1, "pandacea environment build"),
        ("privacy", {"sandbox": "docker", "docker_url": "unix:///nowhere.sock"}, 1, "nowhere.sock"),
        ("blockchain", {"deployment": None, "contract_address": "0x" + "12" * 20}, 1, "no contract"),
    ],
)
def test_what_is_missing_on_the_machine_is_named(
    tmp_path: Path, section: str, values: dict[str, object], status: int, said: str
) -> None:
    """A missing keystore, environment, engine or contract: the node says which and what to do, and does not start."""
    with system(tmp_path, "bubblewrap", **{section: values}) as built:
        import json

        built.config[section] = {key: value for key, value in built.config[section].items() if value is not None}
        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        done = pandacea("run", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreadable_table_fails_its_job_and_not_the_node(tmp_path: Path) -> None:
    """The Spender is told and charged nothing, the Earner reads which asset it is, and the next job runs."""
    with system(tmp_path, "bubblewrap") as built:
        (tmp_path / "data" / "earner-data-asset-456.csv").write_bytes(b'"' + b"\x00" * 100)
        built.start()
        lease_id = built.lease(computations=1)
        script = tmp_path / "script.py"
        script.write_text("print(len(features))")
        client = built.client()
        bad = [{"asset_id": "earner-data-asset-456", "variable_name": "features"}]
        good = [{"asset_id": "earner-data-asset-123", "variable_name": "features"}]
        answer: object
        try:
            answer = client.execute_computation(lease_id, script, bad)
        except Exception as problem:  # noqa: BLE001  (either way of telling is looked at below)
            answer = problem
        assert "cannot be read as a table" in str(answer)
        assert "earner-data-asset-456" in built.log()
        assert client.execute_computation(lease_id, script, good)["results"]["output"] == "200\n"


def test_an_unreachable_chain_is_named(tmp_path: Path) -> None:
    """The node keeps trying, and says which endpoint does not answer; it does not crash in a loop."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    with system(tmp_path, "bubblewrap", blockchain={"rpc_url": nowhere}) as built:
        import json

        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        done = pandacea("doctor", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 1
    assert nowhere in done.stdout


def test_doctor_passes_where_everything_is_here(tmp_path: Path) -> None:
    """The table that an Earner reads before the first lease."""
    assert ENVIRONMENT.exists()
    with system(tmp_path, "bubblewrap") as built:
        import json

        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        done = pandacea("doctor", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
