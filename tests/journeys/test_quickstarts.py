"""The README's quickstarts are exactly what is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from pandacea.devchain import CHAIN_ID
from pandacea.sandbox.cgroups import Cgroups
from tests.journeys.conftest import ENVIRONMENT, System, system
from tests.parts import ROOT

README = (ROOT / "README.md").read_text()
SOURCES = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}


def test_the_spenders_quickstart_runs_as_it_is_written(weather: System) -> None:
    """The Python of the README, word for word but for the port."""
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    program = found[1].replace("http://localhost:8080", weather.url)
    lease_id = weather.lease(computations=1)
    program = f"lease_id = {lease_id!r}\n{program}\nassert weights.startswith(b'PK'), weights[:10]\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "PANDACEA_PRIVATE_KEY": weather.accounts[2]["private_key"]}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_example_of_a_spenders_side_runs(weather: System, tmp_path: Path) -> None:
    """examples/federated_learning_example.py leaves the weights in ./out."""
    lease_id = weather.lease(computations=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "PANDACEA_PRIVATE_KEY": weather.accounts[2]["private_key"]}
    command = [sys.executable, str(ROOT / "examples" / "federated_learning_example.py"), lease_id, weather.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model_weights.pth").read_bytes().startswith(b"PK")


def test_a_spender_reads_which_packages_a_script_finds(weather: System) -> None:
    """What the node says of itself names every package of the sandbox at its version."""
    packages = weather.client().info()["environment"]["packages"]
    assert {line.split("==")[0] for line in packages} >= {"torch", "pandas", "scikit-learn", "syft"}


def test_the_earners_quickstart_runs_as_it_is_written(tmp_path: Path) -> None:
    """Each command of the README in turn; the editor's work is done here, pip's and the environment's by make setup."""
    block = re.search(r'    pip install "pandacea\[daemon\]"\n(.*?)\n\n', README, re.DOTALL)
    assert block is not None
    commands = [line.split("  #")[0].strip() for line in block[1].splitlines()]
    home = tmp_path / "home"
    home.mkdir()
    with system(tmp_path / "chain", "bubblewrap") as built:
        for command in commands:
            if command.startswith("$EDITOR"):
                edit(home, built)
            elif command.startswith("pandacea products add"):
                (home / "data" / "my-table.csv").write_text("a,b\n1,2\n")
                offer(command, home)
            elif not command.startswith(("pandacea environment", "pandacea run")):
                shell(command, home)
        assert commands[-1] == "pandacea run"
        assert commands[0] == "pandacea environment build"


def shell(command: str, home: Path) -> None:
    """Run a line as a reader would type it."""
    done = subprocess.run(["sh", "-c", typed(command)], capture_output=True, text=True, check=False, cwd=home, env=SOURCES)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def offer(command: str, home: Path) -> None:
    """Answer what is asked with Enter, and agree to what becomes public."""
    pipe, line = subprocess.PIPE, ["sh", "-c", typed(command)]
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, cwd=home, env=SOURCES) as asking:
        assert asking.stdin is not None
        assert asking.stdout is not None
        said = b""
        while byte := asking.stdout.read(1):
            said += byte
            if said.endswith(b"] "):
                asking.stdin.write(b"y\n" if said.endswith(b"Publish this? [y/N] ") else b"\n")
                asking.stdin.flush()
    assert asking.returncode == 0, said.decode()
    assert b"Publish this?" in said


def typed(command: str) -> str:
    """A line of the README, with the program of this checkout."""
    return command.replace("pandacea ", f"{sys.executable} -m pandacea ", 1) if command.startswith("pandacea ") else command


def edit(home: Path, built: System) -> None:
    """What the Earner writes into config.yaml."""
    config = yaml.safe_load((home / "config.yaml").read_text())
    config["blockchain"] |= {"rpc_url": built.rpc_url, "contract_address": built.contract, "chain_id": CHAIN_ID}
    config["earner"]["address"] = built.accounts[1]["address"]
    config["privacy"] |= {"environment": str(ENVIRONMENT), "sandbox": "bubblewrap", "cgroups": Cgroups.may_be_made()}
    (home / "config.yaml").write_text(yaml.safe_dump(config))
