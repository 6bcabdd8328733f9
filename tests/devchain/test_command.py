"""`pandacea devchain`: a chain for people, with ether for the addresses they name."""

from __future__ import annotations

import os
import subprocess
import sys

import aiohttp

from pandacea.devchain import DevChain
from pandacea.errors import Refused
from tests.journeys.conftest import pandacea
from tests.prerequisites import ROOT

ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


async def test_an_address_is_funded() -> None:
    """Each funding sends ether, in a block of its own."""
    async with DevChain() as chain, aiohttp.ClientSession() as http:
        for _ in range(2):
            chain.fund(ADDRESS, 3 * 10**18)
        asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": [ADDRESS.lower(), "latest"]}
        async with http.post(chain.url, json=asked) as answer:
            assert int((await answer.json())["result"], 16) == 6 * 10**18


async def test_what_is_no_address_is_not_funded() -> None:
    """A malformed address is refused with one sentence."""
    async with DevChain() as chain:
        try:
            chain.fund("0x12", 1)
        except Refused as problem:
            assert "'0x12' cannot be funded" in problem.detail
        else:
            raise AssertionError("it was funded")


def test_the_command_says_where_the_chain_is_until_it_is_stopped() -> None:
    """The command prints one line for a person, and what each address got."""
    command = [sys.executable, "-m", "pandacea", "devchain", "--port", "0", "--fund", ADDRESS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout is not None
        first, second = running.stdout.readline(), running.stdout.readline()
        running.terminate()
        assert running.wait(30) == 0
    assert first.startswith("Development chain 131277322940537 at http://127.0.0.1:")
    assert second.split() == [ADDRESS, "100", "ether"]


def test_the_extra_is_named_where_it_is_missing() -> None:
    """Without the extra `devchain` the command says what to install, without a traceback."""
    program = "import sys; sys.modules['eth'] = None; from pandacea.cli.main import main; sys.exit(main(['devchain']))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
    )
    assert done.returncode == 2
    assert "pip install '.[daemon,devchain]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named() -> None:
    """A port that is taken is named, with what to do."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = pandacea("devchain", "--port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
