"""A node that starts while no RPC endpoint answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pandacea.devchain import CHAIN_ID
from tests.journeys.conftest import INPUTS, System, pandacea, system
from tests.prerequisites import free_port

RELAY = """
import asyncio, sys

async def carry(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()

async def serve(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(carry(reader, there[1]), carry(there[0], writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def endpoint(port: int, chain: str) -> Iterator[None]:
    """An endpoint at `port` that shows the chain at the URL `chain`."""
    process = subprocess.Popen([sys.executable, "-c", RELAY, str(port), str(urlsplit(chain).port)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[System]:
    """A node that is told a contract, its chain, and one endpoint, where nobody listens yet."""
    with system(tmp_path / "node", "bubblewrap") as built:
        del built.config["blockchain"]["deployment"]
        built.config["blockchain"] |= {
            "contract_address": built.contract,
            "chain_id": CHAIN_ID,
            "rpc_url": f"http://127.0.0.1:{free_port()}",
        }
        yield built


def test_a_node_that_followed_the_contract_before_serves_503s_until_an_endpoint_is_back(served: System, tmp_path: Path) -> None:
    """It refuses what it cannot judge, keeps trying, and then works as if nothing had been."""
    port = urlsplit(served.config["blockchain"]["rpc_url"]).port
    assert port is not None
    script = tmp_path / "script.py"
    script.write_text("print(len(features))")
    with endpoint(port, served.rpc_url):
        served.start()
        lease = served.lease()
        client = served.client()
        assert client.execute_computation(lease, script, INPUTS)["success"]
        assert served.stop() == 0

    served.launch()
    served.until(lambda: served.status("/healthz") == 200, "it does not serve")
    assert served.status("/readyz") == 503
    told = client.lease(lease)
    assert not told["may_run"], "what the database says of it is told, and nothing is run by it"

    with endpoint(port, served.rpc_url):
        served.until(lambda: served.status("/readyz") == 200, "not ready again")
        assert client.execute_computation(lease, script, INPUTS)["success"]
        assert client.lease(lease)["used"] == 2
        assert served.stop() == 0


def test_a_first_start_without_an_endpoint_serves_503s_until_one_answers(served: System) -> None:
    """It knows which chain it is to follow; what is on it, it cannot know yet."""
    port = urlsplit(served.config["blockchain"]["rpc_url"]).port
    assert port is not None
    served.launch()
    served.until(lambda: served.status("/healthz") == 200, "it does not serve")
    assert served.status("/readyz") == 503
    with endpoint(port, served.rpc_url):
        served.until(lambda: served.status("/readyz") == 200, "not ready")
        assert served.stop() == 0


def test_an_endpoint_does_not_choose_the_chain(served: System) -> None:
    """Without the chain's id nothing tells a test chain from the real one: exit status 2, and the key that is missing."""
    del served.config["blockchain"]["chain_id"]
    config = served.folder / "config.yaml"
    config.write_text(json.dumps(served.config))
    done = pandacea("run", "--config", str(config))
    assert done.returncode == 2
    assert "chain_id must be given" in done.stderr
    assert "Traceback" not in done.stderr
