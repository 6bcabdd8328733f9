"""A real node: its own process, bubblewrap sandboxes, SQLite on disk, an embedded chain. It can be killed at any moment."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from eth_account import Account

from pandacea.devchain import DevChain
from pandacea_sdk.chain import LeaseChain, deploy
from pandacea_sdk.protocol.execute_request import ComputationInput, ExecuteRequest
from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import sign_request
from tests.prerequisites import ROOT, free_port, skip_or_fail

ENVIRONMENT = Path(os.environ.get("PANDACEA_TEST_ENVIRONMENT", ROOT / ".sandbox"))
PASSPHRASE = "only for tests"
EXECUTE = "/api/v1/privacy/execute"


@dataclass
class NodeAnswer:
    status: int
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass
class KillRig:
    """One node's folder, its chain, and a Spender with a lease for `computations`."""

    folder: Path
    port: int
    chain_id: int
    spender: KeySigner
    zygote: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    lease_id: str = ""
    pid: int = 0
    starts: int = 0
    alive: set[int] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    async def launch(self) -> None:
        """Start a node process."""
        self.pid = await self._run(self.folder / "node.log", "run")
        self.starts += 1

    async def start(self) -> None:
        """Start a node process and wait until it serves."""
        await self.launch()
        deadline = time.monotonic() + 60
        while True:
            try:
                async with self.session.get(f"http://127.0.0.1:{self.port}/readyz") as response:
                    if response.status == 200 and (self.starts > 1 or await self._lease_counts()):
                        return
            except aiohttp.ClientError:
                pass
            assert time.monotonic() < deadline, f"the node does not become ready:\n{self.log()}"
            await asyncio.sleep(0.02)

    async def _lease_counts(self) -> bool:
        answer = await self.send("GET", f"/api/v1/leases/{self.lease_id}")
        return answer.status == 200 and bool(answer.json["may_run"])

    async def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; the exit status (negative: the signal)."""
        os.kill(self.pid, number)
        return await self._wait(self.pid)

    async def end(self, pid: int) -> None:
        """End a process, whatever it does: in order if it can, so that it leaves nothing on this machine."""
        os.kill(pid, signal.SIGTERM)
        waiting = asyncio.create_task(self._wait(pid))
        _, still = await asyncio.wait({waiting}, timeout=30)
        if still:
            os.kill(pid, signal.SIGKILL)
        await waiting

    async def _run(self, log: Path, *words: str) -> int:
        pid = int(await self._ask(start=[*words, "--config", str(self.folder / "config.yaml")], log=str(log)))
        self.alive.add(pid)
        return pid

    async def _wait(self, pid: int) -> int:
        status = int(await self._ask(wait=pid))
        self.alive.discard(pid)
        return status

    async def _ask(self, **asked: Any) -> str:
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        async with self.lock:
            self.zygote.stdin.write(json.dumps(asked).encode() + b"\n")
            await self.zygote.stdin.drain()
            return (await self.zygote.stdout.readline()).decode().strip()

    def log(self) -> str:
        path = self.folder / "node.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    async def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> NodeAnswer:
        """Send one signed request to the node."""
        plain = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            plain["Content-Type"] = "application/json"
        authority = f"127.0.0.1:{self.port}"
        signed = sign_request(
            self.spender,
            method=method,
            authority=authority,
            target=path,
            body=body,
            chain_id=self.chain_id,
            created=int(time.time()),
            nonce=secrets.token_urlsafe(16),
            headers=plain,
        )
        async with self.session.request(method, f"http://{authority}{path}", data=body, headers=plain | signed) as response:
            return NodeAnswer(response.status, await response.read())

    async def submit(self, code: str, inputs: tuple[ComputationInput, ...] = (), **headers: str) -> NodeAnswer:
        """Ask for a computation, asynchronously."""
        body = ExecuteRequest(self.lease_id, code, inputs).to_bytes()
        return await self.send("POST", EXECUTE, body, Prefer="respond-async", **headers)

    async def status(self, computation_id: str, more: str = "") -> dict[str, Any]:
        """Where a computation stands."""
        answer = await self.send("GET", f"/api/v1/privacy/results/{computation_id}{more}")
        assert answer.status == 200, answer.body
        return answer.json

    async def until(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.02)

    def rows(self, query: str) -> list[Any]:
        """Look into the database."""
        with sqlite3.connect(f"file:{self.state / 'pandacea.db'}?mode=ro", uri=True) as database:
            return database.execute(query).fetchall()

    async def command(self, *words: str) -> tuple[int, str]:
        """Run `pandacea WORDS --config ...` as the operator does."""
        out = self.folder / f"command-{secrets.token_hex(4)}"
        status = await self._wait(await self._run(out, *words))
        return status, out.read_text()


@asynccontextmanager
async def rig(
    folder: Path, *, rules: dict[str, Any] | None = None, computations: int = 100_000, **sections: Any
) -> AsyncIterator[KillRig]:
    """Everything but a started node."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        skip_or_fail(f"no sandbox environment in {ENVIRONMENT}; run: make setup")
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(DevChain(0))
        deployer, earner, spender, _, arbiter = chain.accounts[:5]
        record = await deploy(chain.url, deployer.private_key, arbiter=arbiter.address)
        record.write(folder / "deployment.json")
        port = free_port()
        _write(folder, chain.url, earner, port, rules, sections)
        zygote = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "tests" / "kill" / "zygote.py"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
        )
        stack.push_async_callback(_end, zygote)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        built = KillRig(folder, port, record.chain_id, KeySigner(spender.private_key), zygote, session)
        async with LeaseChain(chain.url, record.address, key=spender.private_key) as hand:
            expires = await hand.now() + 7 * 86_400
            built.lease_id = await hand.create_lease(
                earner.address, "p", price=10**15, expires_at=expires, max_computations=computations
            )
        async with LeaseChain(chain.url, record.address, key=earner.private_key) as hand:
            await hand.approve(built.lease_id)
        try:
            yield built
        finally:
            for pid in list(built.alive):
                await built.end(pid)


async def _end(zygote: asyncio.subprocess.Process) -> None:
    assert zygote.stdin is not None
    zygote.stdin.close()
    await zygote.wait()


def _write(folder: Path, rpc_url: str, earner: Any, port: int, rules: dict[str, Any] | None, sections: dict[str, Any]) -> None:
    """Data, keys and configuration."""
    data = folder / "data"
    data.mkdir()
    (data / "table.csv").write_text("x,y\n" + "".join(f"{n % 25},{n % 7}\n" for n in range(50)))
    rules = {"policy": "any-code", "release": "auto", "live_output": "full"} | (rules or {})
    columns = {"x": {"minimum": 0, "maximum": 50}, "y": {"minimum": 0, "maximum": 7}}
    assets = {"table": {"keep_flagged": ["x"], "columns": columns, "mock": {"rows": 10, "seed": 1}}}
    (data / "products.yaml").write_text(json.dumps({"products": [{"id": "p", "assets": assets, "rules": rules}]}))
    passphrase = folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(PASSPHRASE)
    # A keystore that opens at once: a hundred starts would spend minutes on a strong one.
    keystore = Account.encrypt(earner.private_key, PASSPHRASE, kdf="pbkdf2", iterations=1)
    (folder / "operator.json").write_text(json.dumps(keystore))
    config: dict[str, Any] = {
        "blockchain": {
            "rpc_url": rpc_url,
            "deployment": "deployment.json",
            "confidence": {"confirmations": 0},
            "development": True,
            "poll_seconds": 0.1,
        },
        "earner": {"address": earner.address, "keystore": "operator.json", "passphrase_file": "passphrase"},
        "privacy": {"sandbox": "bubblewrap", "environment": str(ENVIRONMENT), "pool_size": 0, "workers": 2},
        "server": {"port": port, "grace_seconds": 5},
        "log": {"format": "json"},
    }
    for section, values in sections.items():
        config[section] = {**config.get(section, {}), **values}
    (folder / "config.yaml").write_text(json.dumps(config))
