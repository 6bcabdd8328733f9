"""Measure the node's HTTP side beside one bare aiohttp handler in the same run. Needs wrk; one server process, loopback.

    python benchmarks/api.py [--seconds 8] [--connections 64] [--json FILE]

unsigned   a POST without a signature: refused with 401 after every guard of the connection
signed     a known Spender, full signature, a new nonce committed to SQLite (synchronous=FULL), refused for its lease: 403
           bare server and node are warmed alike, for two seconds each, before they are measured
p99        the same at half that rate, sent on time whatever the answers do (open loop), while jobs run on a processor of their own
           and the generator shares the other with the node; beside it how long the node waited for a processor
memory     1,000 computations queued and finished: growth of resident memory, and the longest the event loop was held
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "daemon"), str(ROOT)]

from benchmarks.api_node import AUTHORITY, CHAIN_ID, EXPIRED_LEASE, GOOD_LEASE, REFUSED, WORKING
from benchmarks.api_open_loop import open_loop
from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import sign_request

TARGET: Final = "/api/v1/privacy/execute"
JOB_SECONDS: Final = 0.07
"""Processor time of one job while the p99 is measured: what the example's training takes in a warm sandbox."""
WARM_SECONDS: Final = 2.0
"""The first seconds of a server process are slower than the rest, and differently so for a bare handler and for the node."""
LUA: Final = """
local file = io.open(os.getenv("REQUESTS"), "rb")
local requests, at = {}, 0
for one in string.gmatch(file:read("*a"), "[^%z]+") do requests[#requests + 1] = one end
function request()
  at = at + 1
  return requests[(at - 1) % #requests + 1]
end
function done(summary)
  io.write(string.format("LEFT %d\\n", #requests - summary.requests))
end
"""


@dataclass(frozen=True)
class Measured:
    """One run of wrk."""

    per_second: float
    other_than_2xx: int
    left: int
    cpu_us: float
    """Processor time of the server for one request, in microseconds: comparable even when the machine is busy."""


def raw_request(lease_id: str, signer: KeySigner | None, prefer: str | None = None) -> bytes:
    """Write the bytes of one execute request, signed with a fresh nonce."""
    code = "print('hello')\n"
    wanted = {"lease_id": lease_id, "code": code, "inputs": [{"asset_id": "a", "variable_name": "table"}]}
    body = json.dumps(wanted).encode()
    headers = {"Content-Type": "application/json"} | ({"Prefer": prefer} if prefer else {})
    if signer is not None:
        nonce = os.urandom(16).hex()
        created = int(time.time())
        headers |= sign_request(
            signer,
            method="POST",
            authority=AUTHORITY,
            target=TARGET,
            chain_id=CHAIN_ID,
            created=created,
            expires=created + 300,
            nonce=nonce,
            headers=headers,
            body=body,
        )
    lines = [f"POST {TARGET} HTTP/1.1", f"Host: {AUTHORITY}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class ServerProcess(NamedTuple):
    """A running server: its port and its process."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Read the processor time used so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def seconds_without_processor(self) -> float:
        """Read for how long its event loop's thread was ready and had no processor so far: on a quiet machine next to nothing."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/schedstat").read_text(encoding="utf-8").split()[1]) / 1e9


@contextmanager
def start_server(*arguments: str) -> Iterator[ServerProcess]:
    """Start a server process for the block."""
    command = [sys.executable, "-m", "benchmarks.api_node", *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'daemon'}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield ServerProcess(json.loads(process.stdout.readline())["port"], process.pid)
        finally:
            process.send_signal(signal.SIGINT)  # so that it removes its folder


def run_wrk(running: ServerProcess, requests: list[bytes], seconds: float, connections: int) -> Measured:
    """Send `requests` in turn, each once, as fast as they are answered."""
    with tempfile.TemporaryDirectory() as folder:
        script, data = Path(folder, "requests.lua"), Path(folder, "requests")
        script.write_text(LUA)
        data.write_bytes(b"\0".join(requests))
        before = running.cpu_seconds()
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), f"http://127.0.0.1:{running.port}{TARGET}"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "REQUESTS": str(data)},
        )
    used = running.cpu_seconds() - before
    total = re.search(r"(\d+) requests in", done.stdout)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    left = re.search(r"LEFT (-?\d+)", done.stdout)
    assert found, done.stdout
    assert total, done.stdout
    return Measured(float(found[1]), int(refused[1]) if refused else 0, int(left[1]) if left else 0, used / int(total[1]) * 1e6)


def read_stats(port: int) -> dict[str, Any]:
    """Read the node's own figures; reading resets the longest block of its event loop."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


async def send_request(port: int, raw: bytes, pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> tuple[int, bytes]:
    """Send one request on a pooled connection; returns status and body."""
    reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length is not None, head
    body = await reader.readexactly(int(length[1]))
    pool.append((reader, writer))
    return int(head.split(b" ", 2)[1]), body


async def submit_jobs(port: int, requests: list[bytes]) -> None:
    """Submit computations, sixteen at a time."""
    pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    places = asyncio.Semaphore(16)

    async def send(raw: bytes) -> None:
        async with places:
            status, body = await send_request(port, raw, pool)
            assert status == 202, body

    await asyncio.gather(*(send(raw) for raw in requests))
    for _, writer in pool:
        writer.close()


def job_requests(count: int) -> list[bytes]:
    """Sign requests for computations, which are answered 202."""
    return [raw_request(GOOD_LEASE, WORKING, "respond-async") for _ in range(count)]


def throughput(seconds: float, connections: int) -> dict[str, float]:
    """Measure bare, unsigned, signed, and bare again: ratios to the mean of the two."""
    plain = [raw_request(EXPIRED_LEASE, None)]
    with start_server("bare") as running:
        run_wrk(running, plain, WARM_SECONDS, connections)
        first = run_wrk(running, plain, seconds, connections)
    with start_server("node", "0") as running:
        run_wrk(running, plain, WARM_SECONDS, connections)
        unsigned = run_wrk(running, plain, seconds, connections)
        run_wrk(running, [raw_request(EXPIRED_LEASE, REFUSED) for _ in range(2000)], 1, connections)  # warm
        signed = run_wrk(running, [raw_request(EXPIRED_LEASE, REFUSED) for _ in range(int(seconds * 6000))], seconds, connections)
    with start_server("bare") as running:
        run_wrk(running, plain, WARM_SECONDS, connections)
        again = run_wrk(running, plain, seconds, connections)
    assert signed.left >= 0, "the signed requests ran out; replays were measured"
    assert unsigned.other_than_2xx > 0
    base = (first.per_second + again.per_second) / 2
    return {
        "bare_per_s": base,
        "unsigned_per_s": unsigned.per_second,
        "unsigned_vs_bare": unsigned.per_second / base,
        "signed_per_s": signed.per_second,
        "signed_vs_bare": signed.per_second / base,
        "bare_cpu_us": (first.cpu_us + again.cpu_us) / 2,
        "unsigned_cpu_us": unsigned.cpu_us,
        "signed_cpu_us": signed.cpu_us,
    }


def latency(per_second: float, seconds: float) -> dict[str, float]:
    """Measure p50, p99 and the worst at a fixed rate while jobs run."""
    with start_server("node", str(JOB_SECONDS)) as running:
        port = running.port
        asyncio.run(submit_jobs(port, job_requests(int(seconds / JOB_SECONDS) + 50)))
        requests = [raw_request(EXPIRED_LEASE, REFUSED) for _ in range(int(per_second * seconds))]
        read_stats(port)
        before = running.seconds_without_processor()
        taken = open_loop(port, requests, per_second, b"403")
        waited = running.seconds_without_processor() - before
        after = read_stats(port)
    assert after["live"] > 0, "the jobs ended before the measurement did"
    return {
        "rate_under_jobs": per_second,
        "p50_ms_under_jobs": taken[len(taken) // 2] * 1000,
        "p99_ms_under_jobs": taken[int(len(taken) * 0.99)] * 1000,
        "worst_ms_under_jobs": taken[-1] * 1000,
        "loop_block_ms_under_jobs": after["loop_block_ms"],
        "no_processor_ms_per_s": waited / seconds * 1000,
    }


def memory(count: int = 1000) -> dict[str, float]:
    """Measure the growth over `count` computations, after fifty that warm everything up."""
    with start_server("node", "0") as (port, _):
        asyncio.run(submit_jobs(port, job_requests(50)))
        _wait_until_done(port)
        before = read_stats(port)
        start = time.monotonic()
        asyncio.run(submit_jobs(port, job_requests(count)))
        worst = _wait_until_done(port)
        taken = time.monotonic() - start
        after = read_stats(port)
    return {
        "rss_growth_mb_1000_jobs": (after["rss"] - before["rss"]) / 1e6,
        "loop_block_ms_max": worst,
        "jobs_per_s": count / taken,
    }


def _wait_until_done(port: int) -> float:
    """Wait until no job is left; returns the longest block of the event loop in ms. Each reading resets that figure."""
    worst = 0.0
    while True:
        found = read_stats(port)
        worst = max(worst, float(found["loop_block_ms"]))
        if not found["live"]:
            return worst
        time.sleep(0.2)


def main() -> None:
    """Measure everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt-get install wrk")
    rows = throughput(asked.seconds, asked.connections)
    rows |= latency(rows["signed_per_s"] / 2, asked.seconds)
    rows |= memory()
    rows["loop_block_ms_max"] = max(rows["loop_block_ms_max"], rows["loop_block_ms_under_jobs"])
    targets = {
        "unsigned_vs_bare": ">= 0.5",
        "signed_vs_bare": ">= 0.15",
        "signed_per_s": ">= 500",
        "p99_ms_under_jobs": "<= 20",
        "rss_growth_mb_1000_jobs": "< 50",
        "loop_block_ms_max": "<= 50",
    }
    for name, value in rows.items():
        print(f"{name:26} {value:10.2f}   {targets.get(name, '')}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
