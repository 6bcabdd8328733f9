"""Injects faults between a node and its chain, one episode after the other, and measures how soon the node is ready again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chain.anvil import Anvil
from tests.faults.proxy import Before, FaultProxy, ProxyAnswer, answer_late, answer_sometimes
from tests.soak.process import NodeProcess
from tests.soak.traffic import Traffic

RECOVERY_SECONDS: Final = 30.0
"""A node that is not ready for longer after the last fault has failed the soak."""
SILENCE_SECONDS: Final = 60.0
"""Without any answer for so long the node must not be ready (`Follower`'s max_silence)."""

PROVIDERS: Final = (
    ProxyAnswer(error={"code": -32005, "message": "daily request count exceeded, request rate limited"}, status=429),
    ProxyAnswer(status=429, body=b"Too Many Requests", headers={"Retry-After": "1"}),
    ProxyAnswer(error={"code": -32000, "message": "header not found"}),
    ProxyAnswer(error={"code": -32603, "message": "Internal error"}),
    ProxyAnswer(error={"code": -32000, "message": "execution timeout"}),
    ProxyAnswer(status=502, body=b"<html><h1>502 Bad Gateway</h1></html>"),
    ProxyAnswer(status=503, body=b""),
    ProxyAnswer(status=200, body=b"<!doctype html>welcome"),
    ProxyAnswer(status=200, body=b'{"jsonrpc":"2.0","id":1,"result":'),
    ProxyAnswer(result=None),
)
RANGES: Final = (
    ProxyAnswer(error={"code": -32005, "message": "query returned more than 10000 results. Try with this block range [0x1, 0x2]."}),
    ProxyAnswer(error={"code": -32602, "message": "eth_getLogs is limited to a 2 block range"}),
    ProxyAnswer(error={"code": -32000, "message": "block range is too wide"}),
    ProxyAnswer(error={"code": -32614, "message": "eth_getLogs is limited to a 10,000 range"}),
)


class Withheld:
    """Partial answers: a log is left out of the first answer and contained in the second."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._once: set[tuple[str, str]] = set()
        self.share = 0.0
        self.shuffled = False
        self.logs = 0
        """Logs that were left out."""

    def __call__(self, method: str, _params: list[Any], result: Any) -> Any:
        """Filter a result, as `tests.faults.proxy.After`."""
        if method != "eth_getLogs" or not isinstance(result, list):
            return result
        told = []
        for log in result:
            identity = (log["blockHash"], log["logIndex"])
            if identity not in self._once and self._dice.random() < self.share:
                self._once.add(identity)
                self.logs += 1
            else:
                told.append(log)
        if self.shuffled:
            told += [log for log in told if self._dice.random() < 0.3]
            self._dice.shuffle(told)
        return told


@dataclass
class FaultInjector:
    """Injects faults, and measures how soon the node recovers."""

    chain: Anvil
    traffic: Traffic
    node: NodeProcess
    proxies: tuple[FaultProxy, FaultProxy]
    dice: random.Random
    kills: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    """Seconds from the end of an episode until the node was ready."""

    def __post_init__(self) -> None:
        # Only the first endpoint leaves logs out: what every endpoint hides, nobody can know.
        self.withheld = Withheld(self.dice)
        self.proxies[0].after.append(self.withheld)

    async def run_episode(self, *, kills: bool = True) -> None:
        """Inject one to three faults at once for some seconds; then wait until the node is ready again."""
        everything: dict[str, Callable[[float], Awaitable[None]]] = {
            "slow": self._slow,
            "errors": self._errors,
            "ranges": self._ranges,
            "withheld": self._withheld,
            "shuffled": self._shuffled,
            "silent-socket": self._silent,
            "cut-socket": self._cut,
            "one-down": self._one_down,
            "all-down": self._all_down,
            "frozen-chain": self._frozen,
            "reorgs": self._reorgs,
        }
        if kills:
            everything |= {"kill": self._killed, "kill-again": self._killed, "stop": self._stopped}
        names = self.dice.sample(list(everything), self.dice.choice([1, 2, 2, 3]))
        if kills and not self.kills:
            names[0] = "kill"
        if len({"kill", "kill-again", "stop"} & set(names)) > 1:
            names = ["kill"]
        self.faults.update("kill" if name == "kill-again" else name for name in names)
        seconds = self.dice.uniform(1.0, 6.0)
        await asyncio.gather(*(everything[name](seconds) for name in names))
        await self.wait_until_recovered()

    async def wait_until_recovered(self) -> None:
        """Wait, after the last fault, until the node is ready.

        Raises:
            AssertionError: it does not within RECOVERY_SECONDS.
        """
        over = time.monotonic()
        while not await self.node.ready():
            waited = time.monotonic() - over
            assert waited < RECOVERY_SECONDS, f"unready {waited:.0f} s after the last fault: {self.node.said}\n{self.node.log()}"
            await asyncio.sleep(0.1)
        self.recoveries.append(time.monotonic() - over)

    async def run_long_silence(self) -> None:
        """Let no endpoint answer for longer than the node may be ready: it must stop being ready, and recover."""
        self.faults["long-silence"] += 1
        async with self._refusing(*self.proxies):
            await asyncio.sleep(SILENCE_SECONDS + 5)
            assert not await self.node.ready(), f"ready after {SILENCE_SECONDS + 5:.0f} s without an answer"
        await self.wait_until_recovered()

    # -- one thing each

    async def _slow(self, seconds: float) -> None:
        await self._ruled(seconds, *((proxy, answer_late(self.dice.uniform(0.1, 2.5))) for proxy in self._some()))

    async def _errors(self, seconds: float) -> None:
        rules = [
            (proxy, answer_sometimes(proxy, self.dice.uniform(0.05, 0.5), answer))
            for proxy in self._some()
            for answer in self.dice.sample(PROVIDERS, 3)
        ]
        await self._ruled(seconds, *rules)

    async def _ranges(self, seconds: float) -> None:
        rules = [(proxy, answer_sometimes(proxy, 0.5, self.dice.choice(RANGES), ["eth_getLogs"])) for proxy in self._some()]
        await self._ruled(seconds, *rules)

    async def _withheld(self, seconds: float) -> None:
        self.withheld.share = self.dice.uniform(0.2, 1.0)
        await asyncio.sleep(seconds)
        self.withheld.share = 0.0

    async def _shuffled(self, seconds: float) -> None:
        self.withheld.shuffled = True
        await asyncio.sleep(seconds)
        self.withheld.shuffled = False

    async def _silent(self, seconds: float) -> None:
        self.proxies[0].silent = True
        await asyncio.sleep(seconds)
        self.proxies[0].silent = False

    async def _cut(self, seconds: float) -> None:
        for _ in range(self.dice.randrange(1, 4)):
            await self.proxies[0].cut_sockets()
            await asyncio.sleep(seconds / 3)

    async def _one_down(self, seconds: float) -> None:
        async with self._refusing(self.dice.choice(self.proxies)):
            await asyncio.sleep(seconds)

    async def _all_down(self, seconds: float) -> None:
        async with self._refusing(*self.proxies):
            await asyncio.sleep(seconds)

    async def _frozen(self, seconds: float) -> None:
        self.chain.freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.chain.thaw()

    async def _reorgs(self, seconds: float) -> None:
        for _ in range(self.dice.randrange(1, 5)):
            await self.traffic.reorganise()
            await asyncio.sleep(self.dice.uniform(0, seconds / 3))

    async def _killed(self, seconds: float) -> None:
        await asyncio.sleep(self.dice.uniform(0, seconds))
        await self.node.kill()
        self.kills += 1
        await asyncio.sleep(self.dice.choice([0.0, 0.0, seconds, 2 * seconds]))
        await self.node.start()
        if self.dice.random() < 0.3:  # while it starts, too
            await asyncio.sleep(self.dice.uniform(0, 4))
            await self.node.kill()
            self.kills += 1
            await self.node.start()

    async def _stopped(self, seconds: float) -> None:
        await self.wait_until_recovered()  # a start that is interrupted is a kill
        await self.node.stop()
        await asyncio.sleep(seconds)
        await self.node.start()

    # -- how

    def _some(self) -> list[FaultProxy]:
        return self.dice.choice([[self.proxies[0]], [self.proxies[1]], list(self.proxies)])

    async def _ruled(self, seconds: float, *rules: tuple[FaultProxy, Before]) -> None:
        for proxy, rule in rules:
            proxy.before.append(rule)
        await asyncio.sleep(seconds)
        for proxy, rule in rules:
            proxy.before.remove(rule)

    @asynccontextmanager
    async def _refusing(self, *proxies: FaultProxy) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for proxy in proxies:
                proxy.refuse = True
                stack.callback(setattr, proxy, "refuse", False)
                await proxy.cut_sockets()
            yield
