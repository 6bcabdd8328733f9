"""The embedded chain's time: never stale, never far ahead of the clock, and movable."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import aiohttp

from pandacea.devchain import CHAIN_ID, DevChain
from pandacea.devchain.ledger import MAX_AHEAD_SECONDS, DevLedger
from tests.devchain.conftest import DevChainClient

START = 2_000_000_000
DAY = 86_400


class SettableClock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        """Return its Unix seconds."""
        return self.now


def test_the_head_is_fresh_whenever_it_is_asked_for() -> None:
    """At most one empty block is mined a second, and only on demand."""
    clock = SettableClock()
    ledger = DevLedger(clock)
    for later, number, timestamp in ((0, 0, 0), (0.9, 0, 0), (1, 1, 1), (1.5, 1, 1), (60, 2, 60)):
        clock.now = START + later
        ledger.mine_if_stale()
        assert (ledger.head_number, ledger.head.header.timestamp) == (number, START + timestamp)


def test_a_burst_runs_ahead_of_the_clock_only_so_far() -> None:
    """Each block needs a second of its own; after ten, the next one waits for the clock."""
    clock = SettableClock()
    ledger = DevLedger(clock)
    for _ in range(MAX_AHEAD_SECONDS):
        assert ledger.seconds_until_next_block() == 0
        ledger._mine_block([])
    assert ledger.head.header.timestamp == START + MAX_AHEAD_SECONDS
    assert ledger.seconds_until_next_block() == 1
    clock.now += 0.25
    assert ledger.seconds_until_next_block() == 0.75
    clock.now += 0.75
    assert ledger.seconds_until_next_block() == 0


def test_a_clock_that_steps_back_makes_no_block_older_than_its_parent() -> None:
    """Timestamps rise even when the clock goes back."""
    clock = SettableClock()
    ledger = DevLedger(clock)
    clock.now -= 5
    ledger.mine_if_stale()
    assert ledger.head_number == 0
    ledger._mine_block([])
    assert ledger.head.header.timestamp == START + 1


def test_travelling_moves_the_head_and_the_clock() -> None:
    """Time moves from the later of head and clock, and continues from there."""
    clock = SettableClock()
    ledger = DevLedger(clock)
    ledger.advance_time(7 * DAY)
    assert ledger.head.header.timestamp == START + 7 * DAY
    clock.now += 5
    ledger.mine_if_stale()
    assert ledger.head.header.timestamp == START + 7 * DAY + 5


async def test_a_burst_of_transactions_shares_blocks_and_loses_none(client: DevChainClient) -> None:
    """Thirty transactions at once from one account are mined in order, with the head never too far ahead of the clock."""
    clock = SettableClock()
    async with DevChain(clock=clock) as chain, aiohttp.ClientSession() as session:
        burst = DevChainClient(session, chain)
        raw = [await burst.sign_transaction(to=burst.accounts[1].address, value=1, nonce=nonce) for nonce in range(30)]
        sending = asyncio.gather(*(burst.call_method("eth_sendRawTransaction", one) for one in raw))
        while not sending.done():
            clock.now += 0.5
            await asyncio.sleep(0)
            assert chain.ledger.head.header.timestamp <= clock.now + MAX_AHEAD_SECONDS
        hashes = await sending
        receipts = [await burst.call_method("eth_getTransactionReceipt", one) for one in hashes]
        assert [receipt["status"] for receipt in receipts] == ["0x1"] * 30
        assert await burst.call_method("eth_getTransactionCount", burst.accounts[0].address, "latest") == hex(30)


async def test_time_travel_over_rpc(client: DevChainClient) -> None:
    """`evm_increaseTime` moves a chain in another process; backwards is refused."""
    before = int((await client.call_method("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
    arrived = int(await client.call_method("evm_increaseTime", hex(DAY)), 16)
    assert before + DAY <= arrived <= before + DAY + 2
    assert (await client.call_method("eth_getBlockByNumber", "latest", False))["timestamp"] == hex(arrived)
    assert (await client.call_raw_answer("evm_increaseTime", "0x0"))["error"]["code"] == -32000


async def test_as_a_process_it_says_where_it_is_and_ends_when_told() -> None:
    """The process prints one line of JSON; SIGTERM ends it with status 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pandacea.devchain", "--port", "0",
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "daemon"), "PATH": ""},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert (ready["chain_id"], len(ready["accounts"])) == (CHAIN_ID, 10)
        async with aiohttp.ClientSession() as session:
            asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
            async with session.post(ready["url"], json=asked) as response:
                assert int((await response.json())["result"], 16) == CHAIN_ID
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
