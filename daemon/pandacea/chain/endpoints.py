"""Several RPC endpoints: which one to ask now, and how long to leave the others alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from eth_utils.crypto import keccak

from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.domain.ids import Address, Hash32
from pandacea.errors import Broken, Unavailable

log = structlog.get_logger(__name__)

FIRST_BACKOFF_SECONDS: Final = 0.25
MAX_BACKOFF_SECONDS: Final = 60.0
"""Seconds: rests double from the first to the longest, each taken at random between half and whole (jitter)."""

_HARMLESS: Final = frozenset({FaultKind.RANGE})
"""Says nothing about the endpoint's health: we asked too much."""


_BEHIND: Final = frozenset({FaultKind.NULL, FaultKind.INCONSISTENT})
"""A balancer with a node behind the others: it answers, and the next answer may be a good one."""
LAGGING_BACKOFF_SECONDS: Final = 2.0

_ABSENT: Final = frozenset({FaultKind.NETWORK, FaultKind.TIMEOUT, FaultKind.HTTP})
LAST_RESORT_BACKOFF_SECONDS: Final = 5.0
"""Where nobody else can be followed, the longest rest of one that was not there: an outage of all must not outlast itself by a minute."""


class EndpointPool:
    """The configured endpoints in order of preference. One is followed at a time; a fault moves on to the next that rests not."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        chain_id: int,
        contract: Address,
        code_hash: Hash32,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        first_backoff: float = FIRST_BACKOFF_SECONDS,
        max_backoff: float = MAX_BACKOFF_SECONDS,
    ) -> None:
        """`code_hash`: keccak256 of the code at `contract`. An endpoint that shows another chain or other code is not ours."""
        if not endpoints:
            raise Broken("No RPC endpoint is configured. Set blockchain.rpc_url to at least one http:// or https:// URL.")
        self.members = tuple(endpoints)
        for place, endpoint in enumerate(self.members):
            if any(other.name == endpoint.name for other in self.members[:place]):
                endpoint.name += f"#{place + 1}"  # one host, several keys or paths
        self.chain_id = chain_id
        self.contract = contract
        self.code_hash = code_hash
        self._current = self.members[0]
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self._monotonic = monotonic
        self._first_backoff = first_backoff
        self._max_backoff = max_backoff
        self.failovers = 0

    async def pick_endpoint(self) -> Endpoint:
        """The endpoint to ask now, its chain id and the contract's code checked.

        Raises:
            RpcFault: the one picked cannot be verified now (already set aside).
            Unavailable: all of them are resting; `wait()` says how long.
        """
        now = self._monotonic()
        ready = [endpoint for endpoint in self.members if endpoint.backoff_until <= now]
        ready = ready or [endpoint for endpoint in self.members if endpoint.last_resort_backoff_until <= now]
        if not ready:
            raise Unavailable("Every RPC endpoint failed a moment ago; each is tried again after a pause.")
        chosen = self._current if self._current in ready else ready[0]
        if chosen is not self._current:
            self.failovers += 1
            log.info("chain.failover", left=self._current.name, to=chosen.name)
            self._current = chosen
        await self.verify_endpoint(chosen)
        return chosen

    @property
    def current(self) -> Endpoint:
        """The endpoint being followed."""
        return self._current

    def list_others(self, than: Endpoint) -> list[Endpoint]:
        """The rest of them that are not resting."""
        now = self._monotonic()
        return [endpoint for endpoint in self.members if endpoint is not than and endpoint.backoff_until <= now]

    def list_independent(self, endpoint: Endpoint) -> list[Endpoint]:
        """The others that somebody else runs, not resting: only they can bear an endpoint out."""
        return [other for other in self.list_others(endpoint) if other.operator != endpoint.operator]

    def one_per_operator(self) -> list[Endpoint]:
        """The first endpoint of each operator, in order of preference."""
        return list({endpoint.operator: endpoint for endpoint in reversed(self.members)}.values())[::-1]

    async def find_independent(self, endpoint: Endpoint) -> Endpoint | None:
        """One that somebody else runs, chain and contract checked; None where there is none or none answers now."""
        for other in self.list_independent(endpoint):
            try:
                await self.verify_endpoint(other)
            except RpcFault as fault:
                log.info("chain.no-witness", endpoint=other.name, because=fault.detail)
            else:
                return other
        return None

    async def verify_endpoint(self, endpoint: Endpoint) -> None:
        """Check what makes an endpoint ours: its chain id, and the contract's code at its address.

        Raises:
            RpcFault: it cannot be asked, or (`wrong-chain`) it is not ours; either way it was set aside.
        """
        if endpoint.verified:
            return
        try:
            chain_id = await endpoint.get_chain_id()
            if chain_id != self.chain_id:
                raise endpoint.wrong_chain_fault(
                    f"it serves chain {chain_id}, but this node follows chain {self.chain_id}. "
                    "Correct blockchain.rpc_url or blockchain.chain_id."
                )
            code = await endpoint.get_code(self.contract)
            if not code:
                raise endpoint.wrong_chain_fault(
                    f"there is no contract at {self.contract} on chain {chain_id} as it shows it. "
                    "Correct blockchain.contract_address, or wait until that endpoint is in sync."
                )
            found = "0x" + keccak(code).hex()
            if found != self.code_hash:
                raise endpoint.wrong_chain_fault(
                    f"the code at {self.contract} on chain {chain_id} has the hash {found}, expected {self.code_hash}: another "
                    "contract, or another version of it. Correct blockchain.contract_address; a LeaseAgreement of another build is "
                    "followed when blockchain.code_hash states its hash (ask whoever deployed it, not this endpoint)."
                )
        except RpcFault as fault:
            self.record_failure(endpoint, fault)
            raise
        endpoint.verified = True

    async def verify_all(self) -> None:
        """At start: an endpoint that is down is left for later, one that is not ours stops the node.

        Raises:
            Broken: an endpoint serves another chain or has no contract at the address; names which and what to do.
            Unavailable: not one of them answers.
        """
        down = []
        for endpoint in self.members:
            try:
                await self.verify_endpoint(endpoint)
            except RpcFault as fault:
                if fault.kind is FaultKind.WRONG_CHAIN:
                    raise Broken(f"RPC endpoint {endpoint.name}: {fault.reason}") from fault
                down.append(fault.detail)
        if len(down) == len(self.members):
            raise Unavailable(f"No RPC endpoint answers: {'; '.join(down)}. Check blockchain.rpc_url and the network.")

    def record_failure(self, endpoint: Endpoint, fault: RpcFault) -> None:
        """It did not answer usefully: let it rest, longer each time, and follow another meanwhile."""
        if fault.kind in _HARMLESS:
            return
        endpoint.failures_in_a_row += 1
        if fault.kind in {FaultKind.NETWORK, FaultKind.TIMEOUT, FaultKind.HTTP}:
            endpoint.verified = False  # what answers next may be another machine
        if fault.kind is FaultKind.WRONG_CHAIN:
            endpoint.failures_in_a_row = 20
        most = min(LAGGING_BACKOFF_SECONDS, self._max_backoff) if fault.kind in _BEHIND else self._max_backoff
        longest = min(self._first_backoff * 2 ** min(endpoint.failures_in_a_row - 1, 20), most)
        pause = max(longest * self._rng.uniform(0.5, 1.0), float(fault.retry_after))
        endpoint.backoff_until = self._monotonic() + pause
        alone = max(min(pause, LAST_RESORT_BACKOFF_SECONDS), float(fault.retry_after)) if fault.kind in _ABSENT else pause
        endpoint.last_resort_backoff_until = self._monotonic() + alone
        log.warning("chain.rpc-fault", endpoint=endpoint.name, kind=fault.kind, detail=fault.detail, rests=round(pause, 2))

    def record_success(self, endpoint: Endpoint) -> None:
        """It answered usefully."""
        endpoint.failures_in_a_row = 0

    def seconds_until_ready(self) -> float:
        """Seconds until one of them may be asked again."""
        return max(0.0, min(min(one.backoff_until, one.last_resort_backoff_until) for one in self.members) - self._monotonic())

    async def close(self) -> None:
        """Close every connection."""
        for endpoint in self.members:
            await endpoint.close()
