"""A whole system for whole flows: chain, contract, node and sandbox, each a real process on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pandacea import keys
from pandacea.sandbox.bubblewrap.cgroups import NodeCgroup
from pandacea_sdk.chain import LeaseChain, deploy
from pandacea_sdk.chain.errors import RpcRefused
from pandacea_sdk.client import PandaceaClient
from pandacea_sdk.errors import PandaceaError
from tests.prerequisites import ROOT, free_port, skip_or_fail
from tests.sandbox.conftest import image

__all__ = ["image"]

PASSPHRASE = "only for tests"
FEATURES, LABELS = "earner-data-asset-123", "earner-data-asset-456"
INPUTS = [{"asset_id": FEATURES, "variable_name": "features"}, {"asset_id": LABELS, "variable_name": "labels"}]
PRODUCT = "weather"
OPEN_RULES = {"policy": "any-code", "release": "auto", "live_output": "full"}
ENVIRONMENT = Path(os.environ.get("PANDACEA_TEST_ENVIRONMENT", ROOT / ".sandbox"))


@dataclass
class System:
    """A running system. `accounts`: 0 deployer, 1 Earner, 2 Spender, 3 another Spender, 4 arbiter."""

    folder: Path
    rpc_url: str
    accounts: list[dict[str, str]]
    contract: str
    port: int
    config: dict[str, Any]
    node: subprocess.Popen[bytes] | None = None
    clients: list[PandaceaClient] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address that the node serves at."""
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        """Start the node and wait until it is ready."""
        self.launch()
        self.until(self._ready, "the node does not become ready")

    def launch(self) -> None:
        """Start the node as a process."""
        (self.folder / "config.yaml").write_text(json.dumps(self.config))
        log = (self.folder / "node.log").open("ab")
        command = [sys.executable, "-m", "pandacea", "run", "--config", str(self.folder / "config.yaml")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
        self.node = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)
        log.close()

    def _ready(self) -> bool:
        assert self.node is not None
        assert self.node.poll() is None, f"the node ended: {self.log()[-2000:]}"
        return self.status("/readyz") == 200

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any], Any]:
        """Return status, JSON and headers of one GET."""
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers or {}), timeout=10) as answer:
                return answer.status, json.load(answer), answer.headers
        except urllib.error.HTTPError as problem:
            return problem.code, json.load(problem), problem.headers

    def status(self, path: str, headers: dict[str, str] | None = None) -> int:
        """Return the status of one GET; 0 while nobody answers."""
        try:
            return self.get(path, headers)[0]
        except OSError:
            return 0

    def stop(self, *, kill: bool = False) -> int:
        """Stop the node; return its exit status."""
        assert self.node is not None
        if kill:
            self.node.kill()
        else:
            self.node.terminate()
        return self.node.wait(30)

    def until(self, condition: Any, otherwise: str, seconds: float = 60) -> None:
        """Wait until a condition is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError(f"{otherwise}\n{self.log()[-2000:]}")

    def log(self) -> str:
        """Return what the node has logged."""
        path = self.folder / "node.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def client(self, account: int = 2, **options: Any) -> PandaceaClient:
        """Make a client of a Spender."""
        client = PandaceaClient(self.url, key=self.accounts[account]["private_key"], **options)
        self.clients.append(client)
        return client

    def lease(self, *, spender: int = 2, computations: int = 20, approve: bool = True, wait: bool = True) -> str:
        """Make a new lease, approved and seen by the node."""
        lease_id = asyncio.run(self._lease(spender, computations, approve))
        if approve and wait:
            client = self.client(spender)
            self.until(lambda: _may_run(client, lease_id), "the node does not see the approval")
        return lease_id

    async def create_lease(self, spender: int = 2, computations: int = 20) -> str:
        """Make a new lease that is not approved yet."""
        async with LeaseChain(self.rpc_url, self.contract, key=self.accounts[spender]["private_key"]) as chain:
            expires = await chain.now() + 7 * 86_400
            return await chain.create_lease(
                self.accounts[1]["address"], PRODUCT, price=10**15, expires_at=expires, max_computations=computations
            )

    async def _lease(self, spender: int, computations: int, approve: bool) -> str:
        lease_id = await self.create_lease(spender, computations)
        if approve:
            await self._approve(lease_id)
        return lease_id

    async def _approve(self, lease_id: str) -> None:
        """Approve a lease with the node's own key: where the node sent a transaction at the same moment, the nonce is taken, so again."""
        async with asyncio.timeout(30), self.earner() as chain:
            while True:
                try:
                    await chain.approve(lease_id)
                except RpcRefused as refused:
                    if "nonce" not in str(refused):
                        raise
                else:
                    return

    def earner(self) -> LeaseChain:
        """The Earner's transactions on the chain."""
        return LeaseChain(self.rpc_url, self.contract, key=self.accounts[1]["private_key"])


def pandacea(*arguments: str, cwd: Path = ROOT, said: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command; `said`: what its user types."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "daemon"), **environment}
    command = [sys.executable, "-m", "pandacea", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=variables, timeout=120, input=said)


def _may_run(client: PandaceaClient, lease_id: str) -> bool:
    try:
        return bool(client.lease(lease_id)["may_run"])
    except PandaceaError as problem:
        assert problem.code in {"unknown-spender", "lease-unknown", "unavailable"}, problem
        return False


@contextmanager
def system(folder: Path, sandbox: str, *, rules: dict[str, Any] | None = None, **sections: Any) -> Iterator[System]:
    """Chain, contract, tables and a node's configuration; the node is not started yet."""
    folder.mkdir(exist_ok=True)
    if not (ENVIRONMENT / "bin" / "python").exists():
        skip_or_fail(f"no sandbox environment in {ENVIRONMENT}; run: make setup")
    with ExitStack() as stack:
        chain = _chain(stack)
        accounts = chain["accounts"]
        record = asyncio.run(deploy(chain["url"], accounts[0]["private_key"], arbiter=accounts[4]["address"]))
        record.write(folder / "deployment.json")
        data = folder / "data"
        data.mkdir()
        (data / f"{FEATURES}.csv").write_text("wind,sun\n" + "".join(f"{n % 7},{n % 5}\n" for n in range(200)))
        (data / f"{LABELS}.csv").write_text("warmth\n" + "".join(f"{2 * (n % 5) - n % 7}\n" for n in range(200)))
        product = {"id": PRODUCT, "name": "Weather", "assets": [FEATURES, LABELS], "rules": rules or OPEN_RULES}
        (data / "products.yaml").write_text(json.dumps({"products": [product]}))
        passphrase = folder / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text(PASSPHRASE)
        keys.import_key(folder / "operator.json", accounts[1]["private_key"], PASSPHRASE)
        port = free_port()
        config: dict[str, Any] = {
            "blockchain": {
                "rpc_url": chain["url"],
                "deployment": "deployment.json",
                "confidence": {"confirmations": 0},
                "development": True,
                "poll_seconds": 0.1,
            },
            "earner": {"address": accounts[1]["address"], "keystore": "operator.json", "passphrase_file": "passphrase"},
            "privacy": {"sandbox": sandbox, "environment": str(ENVIRONMENT), "pool_size": 1, "cgroups": NodeCgroup.is_available()},
            "server": {"port": port},
        }
        for section, values in sections.items():
            config[section] = {**config.get(section, {}), **values}
        built = System(folder, chain["url"], accounts, record.address, port, config)
        stack.callback(_end, built)
        yield built


def _chain(stack: ExitStack) -> dict[str, Any]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pandacea.devchain", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
    )

    def end() -> None:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()

    stack.callback(end)
    assert process.stdout is not None
    started: dict[str, Any] = json.loads(process.stdout.readline())
    return started


def _end(built: System) -> None:
    for client in built.clients:
        client.close()
    if built.node is not None and built.node.poll() is None:
        built.node.terminate()
        built.node.wait(30)


@pytest.fixture(scope="module")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for a module's tests: bubblewrap, results posted on-chain."""
    with system(tmp_path_factory.mktemp("weather"), "bubblewrap", settlement={"post_results": True}) as built:
        built.start()
        yield built


@pytest.fixture(params=["bubblewrap", "docker"])
def sandbox(request: pytest.FixtureRequest) -> str:
    """Each sandbox in turn; Docker needs an engine that holds the image."""
    kind: str = request.param
    if kind == "docker":
        request.getfixturevalue("image")
    return kind
