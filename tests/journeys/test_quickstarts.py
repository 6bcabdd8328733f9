"""The quickstarts of README and docs/quickstart.md are exactly what is run, with pandacea installed as they say: from its wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pandacea.sandbox.bubblewrap.cgroups import NodeCgroup
from tests.journeys.conftest import ENVIRONMENT, PRODUCT, System, system
from tests.journeys.terminal import Terminal, clone, lines_of, share_libraries, terminal
from tests.prerequisites import ROOT, free_port, skip_or_fail

README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "quickstart.md").read_text()


def section(text: str, title: str) -> str:
    """What stands under a heading of a document."""
    found = re.search(rf"^## {re.escape(title)}.*?\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def install(at: Terminal, line: str, folder: Path) -> None:
    """Type a line that installs; pandacea must come out of it as a wheel."""
    at.type(line)
    if "-m venv" in line:
        share_libraries(folder / "venv")
    if line.startswith("pip install"):
        place = at.type("python -c 'import pandacea, pandacea_sdk; print(pandacea.__file__, pandacea_sdk.__file__)'")
        assert all(Path(file).is_relative_to(folder / "venv") for file in place.split()), place


def put_environment(folder: Path) -> None:
    """In the place of `pandacea environment build`, which tests/sandbox/test_environments.py runs: the one that stands here."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        skip_or_fail(f"no sandbox environment in {ENVIRONMENT}; run: make setup")
    (folder / ".sandbox").symlink_to(ENVIRONMENT.resolve())


def ready(url: str) -> bool:
    """Whether a node serves there, and may be believed."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def start_node(at: Terminal, line: str, url: str) -> None:
    """Type a line that does not end, and wait until the node serves; it stays in the background of its shell."""
    at.type(f"{line} > node.log 2>&1 &")
    deadline = time.monotonic() + 200
    while not ready(url):
        assert time.monotonic() < deadline, at.type("cat node.log")
        time.sleep(0.2)


def test_the_spenders_quickstart_runs_as_it_is_written(weather: System, tmp_path: Path) -> None:
    """Installed without the node's packages' names; the Python of the README, word for word but for port and lease."""
    part = section(README, "Spender: run code on data you never see")
    folder = clone(tmp_path / "clone")
    found = re.search(r"```python\n(.*?)```", part, re.DOTALL)
    assert found is not None
    program = found[1].replace("http://localhost:8080", weather.url).replace("0x…", weather.lease(computations=1))
    (folder / "program.py").write_text(f"{program}\nassert weights.startswith(b'PK'), weights[:10]\n")
    with terminal(folder, tmp_path, PANDACEA_PRIVATE_KEY=weather.accounts[2]["private_key"]) as at:
        for line in lines_of(re.sub(r"```.*?```", "", part, flags=re.DOTALL)):
            install(at, line, folder)
        at.type("python program.py")


def test_the_example_of_a_spenders_side_runs(weather: System, tmp_path: Path) -> None:
    """examples/federated_learning_example.py leaves the weights in ./out."""
    lease_id = weather.lease(computations=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "PANDACEA_PRIVATE_KEY": weather.accounts[2]["private_key"]}
    command = [sys.executable, str(ROOT / "examples" / "federated_learning_example.py"), lease_id, weather.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model_weights.pth").read_bytes().startswith(b"PK")


def test_the_blocks_of_the_sdks_page_run_as_they_are_written(weather: System, tmp_path: Path) -> None:
    """A script of its name and a lease; a function with a handle; a lease made of the signed catalogue; the key of a wallet's owner."""
    first, handles, lease, wallet = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "sdk.md").read_text(), re.DOTALL)[:4]
    (tmp_path / "train.py").write_text("open('model_weights.pth', 'wb').write(features.to_csv().encode())")
    program = first.replace("http://localhost:8080", weather.url).replace("0x…", weather.lease(computations=1))
    program += "\nassert weights.startswith(b',wind,sun'), weights\n"
    program += handles.replace("http://localhost:8080", weather.url).replace("0x…", weather.lease(computations=1))
    program += "\nassert w['lr'] == 0.01, w\n"
    program += (
        lease.replace("http://localhost:8080", weather.url)
        .replace("https://…", weather.rpc_url)
        .replace("0x…", weather.contract)
        .replace('"diabetes"', f"{PRODUCT!r}")
    )
    program += f"\nassert len(lease_id) == 66, lease_id\nowner_key = {'5a' * 32!r}\n{wallet}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), "PANDACEA_PRIVATE_KEY": weather.accounts[2]["private_key"]}
    (tmp_path / "spender.py").write_text(program)  # a function's source is read from its file
    done = subprocess.run(
        [sys.executable, "spender.py"], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.zip").is_file()


def test_a_spender_reads_which_packages_a_script_finds(weather: System) -> None:
    """What the node says of itself names every package of the sandbox at its version."""
    packages = weather.client().info()["environment"]["packages"]
    assert {line.split("==")[0] for line in packages} >= {"torch", "pandas", "scikit-learn", "syft"}


def test_the_earners_quickstart_runs_as_it_is_written(tmp_path: Path) -> None:
    """Each command of the README in turn; what an editor and a person do is done here."""
    folder = clone(tmp_path / "clone")
    with system(tmp_path / "chain", "bubblewrap") as built:
        editor = tmp_path / "editor"
        filled = f"""
            s|<an endpoint of the chain[^>]*>|{built.rpc_url}|; s|<the number of the chain>|131277322940537|
            s|<the LeaseAgreement[^>]*>|"{built.contract}"|; s|<your address[^>]*>|"{built.accounts[1]["address"]}"|
            s|confidence: safe|confidence: {{confirmations: 0}}\\n  development: true|; s|port: 8080|port: {built.port}|
            s|sandbox: auto|sandbox: bubblewrap\\n  cgroups: {str(NodeCgroup.is_available()).lower()}|"""
        editor.write_text(f"#!/bin/sh\nsed -i '{filled}' \"$1\"\n")
        editor.chmod(0o755)
        with terminal(folder, tmp_path, EDITOR=str(editor)) as at:
            for line in lines_of(section(README, "Earner: lease your data")):
                if "-m venv" in line or line.startswith("pip install"):
                    install(at, line, folder)
                elif line == "pandacea environment build":
                    put_environment(Path(at.type("pwd").strip()))
                elif line.startswith("pandacea products add"):
                    at.type("printf 'a,b\\n1,2\\n' > data/my-table.csv")
                    assert "Publish this?" in at.type(line, offer)
                elif line == "pandacea run":
                    start_node(at, line, built.url)
                else:
                    at.type(line)
            assert "my-table" in at.type("pandacea products list")


def offer(said: str) -> str:
    """Answer what is asked with Enter, name a price, and agree to what becomes public."""
    question = said.rpartition("\n")[2]
    if question.startswith("Publish this?"):
        return "y"
    return "0.02 ether" if question.startswith("Price") else ""


@pytest.fixture
def page_ports() -> tuple[str, str]:
    """Free ports in the place of 8545 and 8080."""
    return str(free_port()), str(free_port())


@pytest.mark.timeout(900)  # a dozen commands, each a process of its own
def test_the_page_from_nothing_to_paid_runs_as_it_is_written(tmp_path: Path, page_ports: tuple[str, str]) -> None:
    """Every line of docs/quickstart.md, in its two terminals, but for the two ports; at the end the Earner has the price."""
    chain_port, node_port = page_ports
    folder = clone(tmp_path / "clone")

    def mine(text: str) -> str:
        named = text.replace("127.0.0.1:8545", f"127.0.0.1:{chain_port}").replace("localhost:8080", f"localhost:{node_port}")
        named = named.replace("pandacea devchain", f"pandacea devchain --port {chain_port}")
        return named.replace("examples/lease.py", f"examples/lease.py --rpc-url http://127.0.0.1:{chain_port}")

    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    first, second = (
        section(PAGE, title) for title in ("Terminal 1: the Earner", "Terminal 2: the Spender, and the Earner's answer")
    )
    said = ""
    environment = {"PANDACEA_SERVER__PORT": node_port, "PANDACEA_PRIVACY__SANDBOX": "bubblewrap"}
    environment["PANDACEA_PRIVACY__CGROUPS"] = str(NodeCgroup.is_available()).lower()
    with terminal(folder, tmp_path, **environment) as earner, terminal(folder, tmp_path) as spender:
        for line in lines_of(first):
            if "-m venv" in line or line.startswith("pip install"):
                install(earner, line, folder)
            elif line == "pandacea environment build":
                put_environment(folder / "trial")
            elif line == "pandacea run":
                start_node(earner, line, f"http://localhost:{node_port}")
            else:
                earner.type(mine(line))
        for line in lines_of(re.sub(r"```.*?```", "", second, flags=re.DOTALL)):
            if line.startswith("python spend.py"):
                (folder / "trial" / "spend.py").write_text(mine(program))
            said += spender.type(mine(line))
    assert "response" in said
    assert "executed, 1 of 1 computations committed" in said
    assert "finalized, 1 of 1 computations committed" in said
    assert "0.02 ether withdrawn" in said
