"""The node as its operator starts it: `python -m pandacea run` with a configuration file, observed from outside."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
from eth_account import Account

from pandacea.sandbox.bubblewrap.cgroups import NodeCgroup
from tests.chain.anvil import EARNER, AnvilAgreement
from tests.prerequisites import ROOT, free_port

PASSPHRASE: Final = "only for tests"
MEGABYTE: Final = 1e6


class NodeProcess:
    """One node's folder and, between `start` and `kill` or `stop`, its process."""

    def __init__(self, folder: Path, agreement: AnvilAgreement, urls: Sequence[str], ws_url: str, environment: Path) -> None:
        """`urls`, `ws_url`: the endpoints it follows; `environment`: the bubblewrap environment."""
        self.folder = folder
        self.port, self.metrics_port = free_port(), free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self.started_at = 0.0
        """`time.monotonic()` of the last start."""
        self.starts = 0
        self.said = ""
        """The last answer to GET /readyz."""
        _write(folder, agreement, urls, ws_url, environment, self.port, self.metrics_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.folder / 'state' / 'pandacea.db'}"

    async def start(self) -> None:
        """Start the process; `ready` says whether it serves."""
        self._session = self._session or aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5))
        with (self.folder / "node.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command("run"), stdout=log, stderr=log, cwd=self.folder, env=_environment(), start_new_session=True
            )
        self.started_at = time.monotonic()
        self.starts += 1

    async def kill(self) -> None:
        """End the process with SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        assert await self._process.wait() == -signal.SIGKILL, f"the node had ended by itself:\n{self.log()}"

    async def stop(self) -> None:
        """End the process with SIGTERM, as the service manager does."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(30):
            assert await self._process.wait() == 0, self.log()

    async def close(self) -> None:
        """End the process in any state, in order if it can, so that it leaves nothing on this machine."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(30):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._session is not None:
            await self._session.close()

    async def ready(self) -> bool:
        """Whether GET /readyz answers 200; a node that ended by itself is a failure."""
        assert self._process is not None
        assert self._session is not None
        assert self._process.returncode is None, f"the node ended by itself ({self._process.returncode}):\n{self.log()}"
        try:
            async with self._session.get(f"{self.url}/readyz") as answer:
                self.said = await answer.text()
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def metrics(self) -> dict[str, float]:
        """Return a scrape without the labelled metrics; empty while nothing answers."""
        assert self._session is not None
        try:
            async with self._session.get(f"http://127.0.0.1:{self.metrics_port}/metrics") as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return {}
        return {name: float(value) for name, value in re.findall(r"^pandacea_(\w+) (\S+)$", text, re.MULTILINE)}

    def rss_mb(self) -> float:
        """Return the resident memory of the process, in MB."""
        assert self._process is not None
        return float(psutil.Process(self._process.pid).memory_info().rss / MEGABYTE)

    async def command(self, *words: str) -> str:
        """Run `pandacea WORDS` beside the node; return what it prints."""
        process = await asyncio.create_subprocess_exec(
            *self._command(*words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.folder,
            env=_environment(),
        )
        out, problems = await process.communicate()
        assert process.returncode == 0, problems.decode()
        return out.decode()

    def log(self) -> str:
        """Return the end of the node's log."""
        path = self.folder / "node.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pandacea", *words, "--config", str(self.folder / "config.yaml")]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}


def _write(
    folder: Path, agreement: AnvilAgreement, urls: Sequence[str], ws_url: str, environment: Path, port: int, metrics_port: int
) -> None:
    """Write data, key and configuration."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "table.csv").write_text("x,y\n" + "".join(f"{n % 25},{n % 7}\n" for n in range(50)))
    rules = {"policy": "any-code", "release": "auto"}
    (folder / "data" / "products.yaml").write_text(
        json.dumps({"products": [{"id": "diabetes", "assets": {"table": {"keep_flagged": ["x"]}}, "rules": rules}]})
    )
    passphrase = folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(PASSPHRASE)
    # A keystore that opens at once: a strong one would take a second of each start.
    keystore = Account.encrypt(EARNER.key, PASSPHRASE, kdf="pbkdf2", iterations=1)
    (folder / "operator.json").write_text(json.dumps(keystore))
    config: dict[str, Any] = {
        "blockchain": {
            "rpc_url": [{"url": url, "operator": f"operator {place}"} for place, url in enumerate(urls)],
            "ws_url": ws_url,
            "contract_address": agreement.address,
            "chain_id": agreement.chain.chain_id,
            "start_block": agreement.block,
            "timeout_seconds": 2,
            "poll_seconds": 0.5,
        },
        "earner": {"address": EARNER.address, "keystore": "operator.json", "passphrase_file": "passphrase"},
        "privacy": {"sandbox": "bubblewrap", "environment": str(environment), "pool_size": 0, "cgroups": NodeCgroup.is_available()},
        "server": {"port": port, "grace_seconds": 2},
        "telemetry": {"metrics_port": metrics_port},
        "log": {"format": "json"},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
