"""The command line as its user meets it."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from pandacea.devchain import CHAIN_ID
from pandacea_sdk.client import PandaceaClient
from pandacea_sdk.errors import PandaceaError
from tests.journeys.conftest import ENVIRONMENT, INPUTS, OPEN_RULES, pandacea, system
from tests.prerequisites import ROOT, free_port


def test_a_wrong_key_in_the_configuration_is_one_clear_sentence(tmp_path: Path) -> None:
    """Exit status 2, the key, what is allowed; no traceback."""
    text = re.sub("<the num[^>]*>", "1", (ROOT / "config.yaml").read_text()).replace("  port: 8080", "  prot: 8080")
    text = re.sub("<(the|your)[^>]*>", f'"0x{"12" * 20}"', re.sub("<an end[^>]*>", "http://127.0.0.1:1", text))
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
        ("blockchain", {"deployment": None, "contract_address": "0x" + "12" * 20, "chain_id": CHAIN_ID}, 1, "no contract"),
    ],
)
def test_what_is_missing_on_the_machine_is_named(
    tmp_path: Path, section: str, values: dict[str, object], status: int, said: str
) -> None:
    """A missing keystore, environment, engine or contract: the node says which and what to do, and does not start."""
    with system(tmp_path, "bubblewrap", **{section: values}) as built:
        built.config[section] = {key: value for key, value in built.config[section].items() if value is not None}
        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        done = pandacea("run", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreadable_table_keeps_its_product_off_the_shelf_and_the_node_up(tmp_path: Path) -> None:
    """The Earner reads which file and row; the Spender is told that the product is not served; the next product is."""
    with system(tmp_path, "bubblewrap") as built:
        data = tmp_path / "data"
        (data / "earner-data-asset-456.csv").write_text('warmth\n1\n"2\n')
        products = json.loads((data / "products.yaml").read_text())
        products["products"].append({"id": "wind-only", "assets": ["earner-data-asset-123"], "rules": OPEN_RULES})
        (data / "products.yaml").write_text(json.dumps(products))
        built.start()
        client = built.client()
        assert [product["productId"] for product in client.products()] == ["wind-only"]
        assert "earner-data-asset-456.csv" in built.log()
        lease_id = built.lease(wait=False)
        with pytest.raises(PandaceaError) as caught:
            built.until(lambda: _asked(client, lease_id), "the node does not see the approval")
        assert caught.value.code == "product-unknown"


def _asked(client: PandaceaClient, lease_id: str) -> bool:
    """Ask for a computation, once the node knows the Spender."""
    try:
        client.execute_computation(lease_id, ROOT / "examples" / "federated_learning_script.py", [])
    except PandaceaError as problem:
        if problem.code in {"unknown-spender", "lease-unknown", "unavailable"}:
            return False
        raise
    return True


def test_an_unreachable_chain_is_named(tmp_path: Path) -> None:
    """The node keeps trying, and says which endpoint does not answer; it does not crash in a loop."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    with system(tmp_path, "bubblewrap", blockchain={"rpc_url": nowhere}) as built:
        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        done = pandacea("doctor", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 1
    assert nowhere in done.stdout


def test_doctor_passes_where_everything_is_here(tmp_path: Path) -> None:
    """The table that an Earner reads before the first lease: keys, data, chain, and each promise of the sandbox, tried here."""
    assert ENVIRONMENT.exists()
    with system(tmp_path, "bubblewrap") as built:
        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        done = pandacea("doctor", "--json", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)
    assert [row["check"] for row in rows][:8] == [
        *("keystore", "data folder", "products and data", "chain endpoints", "settlement"),
        *("server address", "sandbox", "sandbox environment"),
    ]
    assert {row["state"] for row in rows} <= {"ok", "weaker"}
    for subject in ("network", "uid", "root file system", "memory", "pids", "disk", "time", "system calls: namespaces"):
        assert any(row["check"].startswith(f"sandbox {subject}") for row in rows), subject
    assert all(row["ok"] for row in rows)
    assert not any(tmp_path.glob("state/**/doctor"))


def test_doctor_says_which_sandbox_is_wanting(tmp_path: Path) -> None:
    """No engine where the configuration wants one: a row that says what to do, and what stands after it is still looked at."""
    with system(tmp_path, "docker", privacy={"docker_url": f"unix://{tmp_path}/nobody.sock"}) as built:
        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        done = pandacea("doctor", "--json", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 1, done.stderr
    wanting = [row for row in json.loads(done.stdout) if not row["ok"]]
    assert [row["check"] for row in wanting] == ["sandbox environment"]
    assert "set privacy.docker_url, or set privacy.sandbox: bubblewrap" in wanting[0]["remedy"]


def test_a_data_folder_that_is_not_there_is_not_an_empty_one(tmp_path: Path) -> None:
    """A mistyped name: doctor fails it and says what to run, and the node does not start to serve nothing."""
    with system(tmp_path, "bubblewrap", privacy={"data_dir": "datta"}) as built:
        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        doctor = pandacea("doctor", "--json", "--config", str(tmp_path / "config.yaml"))
        run = pandacea("run", "--config", str(tmp_path / "config.yaml"))
    row = next(row for row in json.loads(doctor.stdout) if row["check"] == "data folder")
    assert (doctor.returncode, row["state"], row["ok"]) == (1, "fail", False)
    assert row["detail"] == f"privacy.data_dir {tmp_path}/datta does not exist"
    assert f"mkdir -m 700 {tmp_path}/datta" in row["remedy"]
    assert run.returncode == 2
    assert "datta does not exist" in run.stderr


@pytest.mark.parametrize("case", ["taken", "open"])
def test_an_address_that_cannot_be_served_is_named_before_anything_long(tmp_path: Path, case: str) -> None:
    """A port somebody has, and plain HTTP to a network: `run` says so before it tries a sandbox, and doctor has a row for it."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = {"port": somebody.getsockname()[1]}
        with system(tmp_path, "bubblewrap", server=taken if case == "taken" else {"host": "0.0.0.0"}) as built:
            built.config["privacy"]["environment"] = "nowhere"  # the sandbox would be named if it were tried first
            (tmp_path / "config.yaml").write_text(json.dumps(built.config))
            run = pandacea("run", "--config", str(tmp_path / "config.yaml"))
            doctor = pandacea("doctor", "--json", "--config", str(tmp_path / "config.yaml"))
    said = "cannot listen on 127.0.0.1" if case == "taken" else "server.host is 0.0.0.0, which others can reach, without TLS"
    assert run.returncode == 2, run.stderr
    assert said in run.stderr
    row = next(row for row in json.loads(doctor.stdout) if row["check"] == "server address")
    assert row["state"] == "fail"
    assert said in row["detail"]
    assert row["remedy"]


def test_doctor_beside_a_running_node_does_not_take_its_port_for_somebody_elses(tmp_path: Path) -> None:
    """The address is served by the very node that it asks about."""
    with system(tmp_path, "bubblewrap") as built:
        built.start()
        doctor = pandacea("doctor", "--json", "--config", str(tmp_path / "config.yaml"))
    row = next(row for row in json.loads(doctor.stdout) if row["check"] == "server address")
    assert row["ok"], row
    assert "served by the node that runs here" in row["detail"]


def test_doctors_table_is_for_a_reader(tmp_path: Path) -> None:
    """Groups, at most 100 columns, what to run below each row that fails, and a last line that names what failed."""
    with system(tmp_path, "bubblewrap", privacy={"data_dir": "datta", "environment": "nowhere"}) as built:
        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        done = pandacea("doctor", "--config", str(tmp_path / "config.yaml"))
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == [
        *("keys:", "data:", "chain:", "server:", "sandbox:")
    ]
    assert [line for line in lines if len(line) > 100 and str(tmp_path) not in line] == [], (
        "but for a path that has no place to break"
    )
    for number, line in enumerate(lines):
        if line.startswith("  FAIL"):
            assert any("-> " in following for following in lines[number + 1 : number + 6]), line
    assert "2 FAIL" in done.stdout
    last = done.stdout.split("\n\n")[-1]
    assert "Fix first: data folder, sandbox environment" in last


def test_leases_are_shown_with_the_reason_beside_a_running_node(tmp_path: Path) -> None:
    """What the node believes of each lease, and why: one that may run, one that is used up."""
    with system(tmp_path, "bubblewrap") as built:
        built.start()
        good, spent = built.lease(computations=2), built.lease(computations=1)
        built.client().execute_computation(spent, ROOT / "examples" / "federated_learning_script.py", INPUTS)
        done = pandacea("leases", "--json", "--config", str(tmp_path / "config.yaml"))
        assert done.returncode == 0, done.stderr
        rows = {row["lease_id"]: row for row in json.loads(done.stdout)}
        assert (rows[good]["approval"], rows[good]["reason"]) == ("signed", None)
        assert rows[spent]["used"] == 1
        assert "1 used" in rows[spent]["reason"]
        shown = pandacea("leases", "--config", str(tmp_path / "config.yaml"))
        assert "may run" in shown.stdout
