"""Measure what following costs: 100,800 logs from a real anvil, everything durable, beside web3.py's documented way and the bare limit.

    python benchmarks/follow.py [--json FILE] [--leases N]

Each way runs in a process of its own. CPU is user + system time of that process, threads included, per event; the chain's own
work is not in it. Growth is peak RSS above what the process had once everything was imported. The limit parses every field that
the follower needs; the follower is counted until it has caught up, over a database made beforehand.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
for place in (ROOT, ROOT / "daemon"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

if TYPE_CHECKING:  # each way imports only what it measures
    from tests.chain.anvil import Anvil
    from tests.chain.emitter import Emitter
    from tests.chain.node import FollowingNode

LEASES = 24_000
LOGS_A_BLOCK = 48
TURNS = 3
"""Times that each way is measured, in turn; the least disturbed turn of each counts, for all ways alike."""
WEB3_SHARE = 5
"""web3.py reads one in this many blocks: all of them would take minutes and cost the same per event."""


def quiet_rereading() -> Any:
    """Return options with which nothing is read again by itself: only the follower's own work is measured."""
    from pandacea.chain.rereading.parts import RereadOptions

    return RereadOptions(range_interval=600.0, scan_step_seconds=600.0, turn_seconds=36_000.0)


# ---------------------------------------------------------------------------------------------------- measuring


def rss_mb() -> float:
    """Read the resident memory now, in MB."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def reset_peak() -> None:
    """Make the kernel count the peak of resident memory from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """Read the peak of resident memory since `reset_peak`, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM")


class Measure:
    """Measures CPU seconds and memory growth of this process over a block."""

    def __enter__(self) -> Measure:
        gc.collect()
        reset_peak()
        self.ended = False
        self.before = rss_mb()
        self.began = time.monotonic()
        self.cpu_began = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ended:
            self.end()

    def end(self) -> None:
        """Stop measuring: what follows is not counted."""
        self.ended = True
        self.cpu = time.process_time() - self.cpu_began
        self.wall = time.monotonic() - self.began
        self.growth = peak_mb() - self.before


# ---------------------------------------------------------------------------------------------------- the ways


def measure_limit(url: str, address: str, last: int, **_: Any) -> dict[str, Any]:
    """Download in ranges and parse with msgspec; nothing else."""
    import aiohttp
    import msgspec

    from pandacea.chain.rpc_messages import RpcLog, RpcResponse

    decoder = msgspec.json.Decoder(RpcResponse[list[RpcLog]])

    async def read() -> int:
        count = 0
        async with aiohttp.ClientSession() as session:
            at = 0
            while at <= last:
                end = min(at + 63, last)
                where = {"address": address, "fromBlock": hex(at), "toBlock": hex(end)}
                body = {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [where]}
                async with session.post(url, json=body) as answer:
                    count += len(decoder.decode(await answer.read()).result or [])
                at = end + 1
        return count

    with Measure() as taken:
        count = asyncio.run(read())
    return {"events": count, "cpu": taken.cpu, "wall": taken.wall, "growth": taken.growth}


def measure_web3(url: str, address: str, last: int, **_: Any) -> dict[str, Any]:
    """Read with `contract.events.X.get_logs`, as web3.py's documentation shows it; nothing is stored."""
    from web3 import Web3

    abi = json.loads((ROOT / "daemon/pandacea_sdk/protocol/abi/LeaseAgreement.json").read_text())["abi"]
    chain = Web3(Web3.HTTPProvider(url))
    contract = chain.eth.contract(address=Web3.to_checksum_address(address), abi=abi)
    events = [
        contract.events.LeaseCreated,
        contract.events.LeaseTerms,
        contract.events.LeaseApproved,
        contract.events.ResultCommitted,
    ]
    count = 0
    with Measure() as taken:
        for start in range(0, last + 1, 64 * WEB3_SHARE):
            for one in events:
                count += len(one.get_logs(from_block=start, to_block=min(start + 63, last)))
    return {"events": count, "cpu": taken.cpu, "wall": taken.wall, "growth": taken.growth}


def measure_follower(url: str, address: str, last: int, database: str, **_: Any) -> dict[str, Any]:
    """Run the node's follower from an empty database to the head: endpoints and logs checked, folded, durable in SQLite, cached.

    What a node spreads over the minutes after that is measured separately: `proof`, CPU seconds of proving one approval, and `reading`,
    of the second reading of all ranges.
    """
    import structlog

    from tests.chain.anvil import Anvil, AnvilAgreement
    from tests.chain.node import FollowingNode

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    options: dict[str, Any] = {"upgraded": True, "settle_every": 32, "cross_check_interval": 15.0, "poll_interval": 1.0}
    again: dict[str, float] = {}

    async def follow() -> None:
        async with (
            Anvil.connect(url) as chain,
            FollowingNode(AnvilAgreement(chain, address, 1), database, reread=quiet_rereading(), **options) as node,
        ):
            await asyncio.wait_for(node.follower.caught_up.wait(), 600)
            view = node.follower.lease_cache.chain_view
            assert view is not None
            assert view.tip.number >= last, view.tip
            taken.end()
            node.follower.collect_metrics()
            assert node.follower.rereading is not None
            proving = node.follower.proof_queue
            assert proving is not None
            began, count = time.process_time(), len(proving.waiting)
            await node.wait_until(lambda: not proving.waiting, 60)
            again["proof"] = (time.process_time() - began) / count
            began = time.process_time()
            while await node.follower.rereading.backfill_checker.check_oldest_range():
                pass
            again["reading"] = time.process_time() - began

    async def prepare() -> None:
        from pandacea.store.database_engine import DatabaseEngine
        from pandacea.store.migrate import upgrade

        opened = await DatabaseEngine.open(database)
        await upgrade(opened)
        await opened.close()

    asyncio.run(prepare())
    with Measure() as taken:
        asyncio.run(follow())
    count = asyncio.run(_counted(database))
    return {"events": count, "cpu": taken.cpu, "wall": taken.wall, "growth": taken.growth, **again}


async def _counted(database: str) -> int:
    """Count the events behind the rows: creations, terms, approvals and commitments."""
    from pandacea.store.database_engine import DatabaseEngine

    opened = await DatabaseEngine.open(database)
    async with opened.read_connection() as connection:
        query = "SELECT COUNT(*), COUNT(data_product_id), COUNT(approved_block), SUM(LENGTH(committed) / 32) FROM lease"
        counts = (await connection.exec_driver_sql(query)).one()
    await opened.close()
    return int(sum(counts))


def measure_ready(url: str, address: str, database: str, **_: Any) -> dict[str, Any]:
    """Start over a database of 100,000 approved leases: seconds until the cache answers, and the idle process's memory."""
    began = time.monotonic()
    began_cpu = time.process_time()
    import structlog

    # What the node's process has loaded besides: it is part of what "idle" weighs.
    import pandacea.app.node

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    from tests.chain.anvil import Anvil, AnvilAgreement
    from tests.chain.node import FollowingNode

    imported = time.monotonic()
    options: dict[str, Any] = {"chain_id": 31337, "cross_check_interval": 15.0}

    async def start() -> dict[str, Any]:
        from pandacea.store.database_engine import DatabaseEngine

        opened = await DatabaseEngine.open(database)
        await opened.close()
        first = time.monotonic()
        async with (
            Anvil.connect(url) as chain,
            FollowingNode(AnvilAgreement(chain, address, 1), database, reread=quiet_rereading(), **options) as node,
        ):
            while not len(node.follower.lease_cache):
                await asyncio.sleep(0.001)
            while node.follower.lease_cache.not_ready_reason is not None:
                await asyncio.sleep(0.001)
            ready = time.monotonic()
            await node.follower.caught_up.wait()
            await asyncio.sleep(1.0)
            gc.collect()
            return {
                "leases": len(node.follower.lease_cache),
                "ready": ready - first,
                "process_ready": ready - began,
                "imports": imported - began,
                "rss": rss_mb(),
                "cpu": time.process_time() - began_cpu,
            }

    said = asyncio.run(start())
    assert pandacea.app
    return said


def measure_lag(url: str, address: str, database: str, poll: bool = False, **_: Any) -> dict[str, Any]:
    """Measure the time from a block being visible at the endpoint to the changed answer, 200 times."""
    import structlog

    from tests.chain.anvil import Anvil, AnvilAgreement
    from tests.chain.emitter import Emitter, lease_number, simple
    from tests.chain.node import FollowingNode

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    rounds = 20 if poll else 200

    async def measure() -> list[float]:
        async with Anvil.connect(url) as chain:
            return await measure_on(chain)

    async def measure_on(chain: Anvil) -> list[float]:
        agreement = AnvilAgreement(chain, address, 1)
        emitter = Emitter(agreement)
        more: dict[str, Any] = {"poll_interval": 1.0} if poll else {"poll_interval": 1.0, "ws_url": chain.ws_url}
        lags = []
        async with FollowingNode(
            agreement, database, cross_check_interval=600.0, reread=quiet_rereading(), settle_every=32, **more
        ) as node:
            await node.wait_for_head(120)
            new_heads = node.follower.new_heads
            if new_heads is not None:
                await node.wait_until(lambda: new_heads.connection_count > 0)
            await asyncio.sleep(0.5)
            before = _approvals(node)
            for number in range(rounds):
                changed = asyncio.Event()
                stop = node.follower.lease_cache.subscribe(partial(_set, changed))
                raw = await emitter.signed(simple("LeaseCancelled", before[number]))
                await asyncio.sleep(0.11 if not poll else 0.37)
                visible = asyncio.create_task(_visible(url, await chain.call_method("eth_blockNumber")))
                await chain.call_method("eth_sendRawTransaction", raw)
                seen = await visible
                await asyncio.wait_for(changed.wait(), 10)
                lags.append((time.monotonic() - seen) * 1000)
                stop()
        assert callable(lease_number)
        return lags

    lags = asyncio.run(measure())
    return {"p50": statistics.median(lags), "max": max(lags), "p99": sorted(lags)[int(len(lags) * 0.99)]}


async def _visible(url: str, head: str) -> float:
    """Wait until the endpoint shows a new head and return that moment. Polls over one open connection, every half millisecond."""
    import aiohttp

    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []})
    async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:
        while True:
            async with session.post(url, data=body) as answer:
                if (await answer.json())["result"] != head:
                    return time.monotonic()
            await asyncio.sleep(0.0005)


def _set(changed: asyncio.Event, _: object) -> None:
    changed.set()


def _approvals(node: FollowingNode) -> list[str]:
    return [str(lease) for lease in node.follower.lease_cache.list_ids()[:400]]


WAYS: dict[str, Callable[..., dict[str, Any]]] = {
    "limit": measure_limit,
    "web3": measure_web3,
    "follower": measure_follower,
    "ready": measure_ready,
    "lag": measure_lag,
}


# ---------------------------------------------------------------------------------------------------- the chain


def make_history(leases: int) -> list[bytes]:
    """Make 4.2 logs for each lease. All but a few hundred leases have expired, as on an old chain."""
    from tests.chain.emitter import committed, created, lease_number, simple, terms

    now = int(time.time())
    records = []
    for number in range(leases):
        lease = lease_number(number)
        expires = now - 86_400 if number % 100 else now + 30 * 86_400
        records += [
            created(lease),
            terms(lease, expires=expires),
            simple("LeaseApproved", lease),
            committed(lease, lease_number(10**9 + number)),
        ]
        if number % 5 == 0:
            records.append(committed(lease, lease_number(2 * 10**9 + number)))
    return records


async def write_history(chain: Anvil, emitter: Emitter, records: list[bytes]) -> None:
    """Write the history to the chain, LOGS_A_BLOCK logs in each block."""
    nonce = int(await chain.call_method("eth_getTransactionCount", emitter_sender(), "latest"), 16)
    for place, start in enumerate(range(0, len(records), LOGS_A_BLOCK)):
        raw = await emitter.signed(*records[start : start + LOGS_A_BLOCK], nonce=nonce + place)
        tx_hash = await chain.call_method("eth_sendRawTransaction", raw)
        if place % 500 == 0:
            await chain.wait_for_receipt(tx_hash)
    await chain.wait_for_receipt(tx_hash)
    await chain.mine_blocks(3)


def emitter_sender() -> str:
    """Return the address that sends the emitter's transactions."""
    from tests.chain.anvil import OWNER

    return str(OWNER.address)


def run_in_process(way: str, **arguments: Any) -> dict[str, Any]:
    """Run one way in a process of its own."""
    said = subprocess.run(
        [sys.executable, __file__, "--way", way, "--arguments", json.dumps(arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'daemon'}:{ROOT}"},
    )
    if said.returncode:
        raise SystemExit(f"{way} failed:\n{said.stderr}")
    found: dict[str, Any] = json.loads(said.stdout.strip().splitlines()[-1])
    return found


async def write_leases(database: str, contract: str, chain: Anvil, count: int) -> None:
    """Write rows of 100,000 approved and proved leases of 2,000 Spenders."""
    from pandacea.domain.approval_proof import digest_terms
    from pandacea.domain.chain_view import BlockRef
    from pandacea.domain.ids import Address, BlockNumber, Hash32, Timestamp
    from pandacea.store import leases
    from pandacea.store.bulk import execute_many, upsert_statement
    from pandacea.store.chain_store import SqlChainStore
    from pandacea.store.database_engine import DatabaseEngine
    from pandacea.store.migrate import upgrade
    from tests.chain.anvil import EARNER, PRODUCT
    from tests.chain.emitter import lease_number

    opened = await DatabaseEngine.open(database)
    await upgrade(opened)
    records = SqlChainStore(opened, 31337, Address(contract))
    head = await chain.call_method("eth_getBlockByNumber", hex(await chain.head_number() - 2), False)
    base = BlockRef(
        BlockNumber(int(head["number"], 16)),
        Hash32(head["hash"]),
        Hash32(head["parentHash"]),
        Timestamp(int(head["timestamp"], 16)),
    )
    earner = Address(EARNER.address.lower())
    await records.open_deployment(earner, "v1", 0, base)
    rows, proofs = [], []
    expires = int(time.time()) + 86_400 * 30
    for number in range(count):
        lease, spender = lease_number(number), "0x" + f"{number % 2000 + 1:040x}"
        tx_hash = lease_number(10**7 + number)
        facts = (1, "approved", PRODUCT, expires, 3, bytes(32), 2, None, None, None, None, None, None)
        rows.append((records.scope.id, lease, spender, earner, "5", *facts, tx_hash, 0))
        terms = digest_terms(lease, spender, earner, PRODUCT, 5, expires, 3)
        proofs.append((records.scope.id, lease, "signed", terms, tx_hash, earner, 0))
    async with opened.write_transaction() as tx:
        await execute_many(tx.connection, upsert_statement(tx.connection, leases._lease), rows)
        await execute_many(tx.connection, upsert_statement(tx.connection, leases._proof), proofs)
        await tx.commit()
    await opened.close()


def less_disturbed(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """Choose the turn with less CPU per event: other processes only ever add to it. The growth is the larger of the two."""
    if before is None:
        return now
    kept = min(before, now, key=lambda taken: taken["cpu"] / taken["events"])
    return kept | {"growth": max(before["growth"], now["growth"])}


async def compare(leases: int) -> dict[str, Any]:
    """Measure everything, one after the other."""
    from tests.chain.anvil import Anvil
    from tests.chain.emitter import Emitter

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with Anvil("--gas-limit", "30000000") as chain:
            emitter = await Emitter.deploy(chain)
            records = make_history(leases)
            print(f"writing {len(records)} logs into anvil ...", flush=True)
            await write_history(chain, emitter, records)
            last = await chain.head_number() - 2
            common = {"url": chain.url, "address": emitter.address, "last": last}
            found["logs"] = len(records)
            for turn in range(TURNS):
                print(f"limit, web3, follower: {turn + 1} of {TURNS} ...", flush=True)
                for way in ("limit", "web3", "follower"):
                    taken = run_in_process(way, database=f"sqlite+aiosqlite:///{folder}/follow{turn}.db", **common)
                    found[way] = less_disturbed(found.get(way), taken)
            print("lag ...", flush=True)
            found["lag"] = run_in_process("lag", database=f"sqlite+aiosqlite:///{folder}/follow0.db", **common)
            found["poll"] = run_in_process("lag", database=f"sqlite+aiosqlite:///{folder}/follow0.db", poll=True, **common)
            print("100,000 leases ...", flush=True)
            database = f"sqlite+aiosqlite:///{folder}/many.db"
            await write_leases(database, emitter.address, chain, 100_000)
            found["ready"] = run_in_process("ready", database=database, **common)
    return found


def report(found: dict[str, Any]) -> dict[str, float]:
    """Print the tables and return the figures."""
    per = {way: found[way]["cpu"] / found[way]["events"] * 1e6 for way in ("limit", "web3", "follower")}
    print(f"\n{found['logs']} logs from anvil, client CPU per event")
    print(f"{'way':<58}{'us/event':>10}{'x limit':>9}{'events':>9}{'wall s':>8}{'growth MB':>11}")
    names = {
        "limit": "limit: download + msgspec parse",
        "web3": "web3.py contract.events.X.get_logs, nothing stored",
        "follower": "this follower: checked, folded, durable in SQLite",
    }
    for way, name in names.items():
        row = found[way]
        print(
            f"{name:<58}{per[way]:>10.1f}{per[way] / per['limit']:>9.1f}{row['events']:>9}{row['wall']:>8.1f}{row['growth']:>11.0f}"
        )
    again = found["follower"]["reading"] / found["follower"]["events"] * 1e6
    print(f"{'its backfill check of all ranges, later, one a second':<58}{again:>10.1f}")
    print(f"looking for the proof of one approval that may still be used, later: {found['follower']['proof'] * 1000:.1f} ms")
    lag, poll, ready = found["lag"], found["poll"], found["ready"]
    print(f"\nblock visible -> answer changed, ms: median {lag['p50']:.1f}, worst of 200 {lag['max']:.1f}  (WebSocket wakes)")
    print(f"                        1-s poller: median {poll['p50']:.0f}, worst {poll['max']:.0f}")
    print(f"{ready['leases']} leases in the database: cache answers after {ready['ready']:.2f} s", end="")
    print(f" ({ready['process_ready']:.2f} s with {ready['imports']:.2f} s of imports); idle {ready['rss']:.0f} MB")
    figures = {
        "cpu_vs_web3_docs": per["web3"] / per["follower"],
        "cpu_vs_limit": per["follower"] / per["limit"],
        "peak_growth_mb": found["follower"]["growth"],
        "lag_ms_p50": lag["p50"],
        "lag_ms_max": lag["max"],
        "cache_ready_s_100k": ready["ready"],
        "idle_rss_mb": ready["rss"],
    }
    targets = {
        "cpu_vs_web3_docs": (">=", 25.0),
        "cpu_vs_limit": ("<=", 8.0),
        "peak_growth_mb": ("<", 120.0),
        "lag_ms_p50": ("<=", 10.0),
        "lag_ms_max": ("<=", 100.0),
        "cache_ready_s_100k": ("<=", 2.0),
        "idle_rss_mb": ("<=", 190.0),
    }
    print(f"\n{'figure':<24}{'measured':>10}{'target':>12}")
    for name, value in figures.items():
        sign, target = targets[name]
        met = value >= target if sign == ">=" else value <= target
        print(f"{name:<24}{value:>10.2f}{sign + ' ' + str(target):>12}{'' if met else '   MISSED'}")
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    """Run the comparison, or one way of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--leases", type=int, default=LEASES, help="leases in the history (4.2 logs each)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--arguments", type=json.loads, default={}, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(WAYS[chosen.way](**chosen.arguments)))
        return
    figures = report(asyncio.run(compare(chosen.leases)))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
