"""The pool of RPC endpoints: which one to follow, failover, and back-off after faults."""

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
"""The back-off doubles from the first to the longest; each is drawn at random between its half and its whole (jitter)."""

_HARMLESS: Final = frozenset({FaultKind.RANGE})
"""Faults that say nothing about the endpoint's health: the request was too large."""

_BEHIND: Final = frozenset({FaultKind.NULL, FaultKind.INCONSISTENT})
"""Faults of a load balancer with a node that lags: the next answer may be good."""
LAGGING_BACKOFF_SECONDS: Final = 2.0
"""The longest back-off after one of them."""

_ABSENT: Final = frozenset({FaultKind.NETWORK, FaultKind.TIMEOUT, FaultKind.HTTP})
"""Faults of an endpoint that cannot be reached."""
LAST_RESORT_BACKOFF_SECONDS: Final = 5.0
"""The longest back-off of an unreachable endpoint while no other can be followed: the node is back soon after an outage of all ends."""


class EndpointPool:
    """The configured endpoints in order of preference. One is followed; after a fault the next one that does not back off."""

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
        """`code_hash`: keccak256 of the code at `contract`; an endpoint with another chain or other code is refused."""
        if not endpoints:
            raise Broken("No RPC endpoint is configured. Set blockchain.rpc_url to at least one http:// or https:// URL.")
        self.members = tuple(endpoints)
        for position, endpoint in enumerate(self.members):
            if any(other.name == endpoint.name for other in self.members[:position]):
                endpoint.name += f"#{position + 1}"  # one host, several keys or paths
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
        """Pick the endpoint to follow now, its chain id and the contract's code checked.

        Raises:
            RpcFault: the one picked could not be verified; it backs off already.
            Unavailable: every endpoint backs off, for `seconds_until_ready()`.
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
        """The endpoint that is followed."""
        return self._current

    def list_others(self, than: Endpoint) -> list[Endpoint]:
        """List the other endpoints that do not back off."""
        now = self._monotonic()
        return [endpoint for endpoint in self.members if endpoint is not than and endpoint.backoff_until <= now]

    def list_independent(self, endpoint: Endpoint) -> list[Endpoint]:
        """List the others that another operator runs and that do not back off: only they can confirm an endpoint's answers."""
        return [other for other in self.list_others(endpoint) if other.operator != endpoint.operator]

    def one_per_operator(self) -> list[Endpoint]:
        """Return the first endpoint of each operator, in order of preference."""
        return list({endpoint.operator: endpoint for endpoint in reversed(self.members)}.values())[::-1]

    async def find_independent(self, endpoint: Endpoint) -> Endpoint | None:
        """Find a verified endpoint of another operator; None where there is none or none answers now."""
        for other in self.list_independent(endpoint):
            try:
                await self.verify_endpoint(other)
            except RpcFault as fault:
                log.info("chain.endpoint_not_verified", endpoint=other.name, reason=fault.detail)
            else:
                return other
        return None

    async def verify_endpoint(self, endpoint: Endpoint) -> None:
        """Check an endpoint's chain id and the contract's code at its address.

        Raises:
            RpcFault: the endpoint failed, or (`wrong-chain`) serves another chain or contract; either way it backs off.
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
                    f"it shows no contract at {self.contract} on chain {chain_id}. "
                    "Correct blockchain.contract_address, or wait until the endpoint is in sync."
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
        """Verify every endpoint at start: one that is down is left for later, one of another chain or contract stops the node.

        Raises:
            Broken: an endpoint serves another chain or contract; the message names it and what to do.
            Unavailable: no endpoint answers.
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
        """Note that an endpoint gave no useful answer: it backs off, longer each time, while another is followed."""
        if fault.kind in _HARMLESS:
            return
        endpoint.failures_in_a_row += 1
        if fault.kind in {FaultKind.NETWORK, FaultKind.TIMEOUT, FaultKind.HTTP}:
            endpoint.verified = False  # what answers next may be another machine
        if fault.kind is FaultKind.WRONG_CHAIN:
            endpoint.failures_in_a_row = 20
        longest = min(LAGGING_BACKOFF_SECONDS, self._max_backoff) if fault.kind in _BEHIND else self._max_backoff
        whole = min(self._first_backoff * 2 ** min(endpoint.failures_in_a_row - 1, 20), longest)
        pause = max(whole * self._rng.uniform(0.5, 1.0), float(fault.retry_after))
        endpoint.backoff_until = self._monotonic() + pause
        alone = max(min(pause, LAST_RESORT_BACKOFF_SECONDS), float(fault.retry_after)) if fault.kind in _ABSENT else pause
        endpoint.last_resort_backoff_until = self._monotonic() + alone
        log.warning(
            "chain.rpc_fault", endpoint=endpoint.name, kind=fault.kind, reason=fault.detail, backoff_seconds=round(pause, 2)
        )

    def record_success(self, endpoint: Endpoint) -> None:
        """Note that an endpoint gave a useful answer."""
        endpoint.failures_in_a_row = 0

    def seconds_until_ready(self) -> float:
        """Return the seconds until an endpoint may be asked again; 0: now."""
        return max(0.0, min(min(one.backoff_until, one.last_resort_backoff_until) for one in self.members) - self._monotonic())

    async def close(self) -> None:
        """Close every endpoint's connections."""
        for endpoint in self.members:
            await endpoint.close()
