"""Asks a v1 contract for the status of every usable lease, in turn and before a run: a denial counts although no log shows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

import structlog

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.rereading.lease_rereader import LeaseRereader
from pandacea.chain.rereading.lease_states import DENIED_STATUSES, fetch_lease_state
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault
from pandacea.domain.approval_proof import COUNTED_PROOFS
from pandacea.domain.ids import Address, LeaseId
from pandacea.domain.lease import FINAL_STATUSES
from pandacea.errors import Unavailable
from pandacea.tasks import run_every

log = structlog.get_logger(__name__)

TURN_SECONDS: Final = 180.0
"""From one `getLease` of a usable lease to the next, as long as the budget allows."""
ROUNDS_PER_TURN: Final = 12
CALLS_PER_ROUND: Final = 60
"""With a round each 15 s: 240 calls a minute at most, enough for 720 usable leases in a turn; more of them take longer turns."""
LEASES_PER_ROUND: Final = 5_000
"""Leases looked at in a round at most, usable or not, so that the event loop is not held up."""
AT_ONCE: Final = 8
FRESH_SECONDS: Final = 5.0
"""A run that starts so soon after its lease was asked for does not ask again."""
BEFORE_RUN_SECONDS: Final = 5.0
"""Longest wait for the answer before a run."""


@dataclass(slots=True)
class LeaseStateChecker:
    """Denies the leases that `getLease` shows as cancelled, disputed or refunded, and has those read again that differ from ours."""

    endpoints: EndpointPool
    lease_cache: InMemoryLeaseCache
    contract: Address
    rereader: LeaseRereader
    turn_seconds: float = TURN_SECONDS
    monotonic: Callable[[], float] = time.monotonic
    denied: dict[str, set[LeaseId]] = field(default_factory=dict)
    """Endpoint -> the leases that it shows as denied; only the endpoint itself withdraws them."""
    _turn: list[LeaseId] = field(default_factory=list)
    _turn_began: float = float("-inf")
    _turns: int = 0
    _asked: dict[LeaseId, float] = field(default_factory=dict)
    """Lease -> when it was asked for before a run."""

    async def run(self, caught_up: asyncio.Event) -> NoReturn:
        """Ask for some leases every few seconds until cancelled, once the head was reached."""
        await caught_up.wait()
        await run_every(
            self.turn_seconds / ROUNDS_PER_TURN, self.check_some, name="chain-lease-states", log_event="chain.state_check_postponed"
        )

    async def check_some(self) -> None:
        """Call `getLease` for the leases whose turn it is. Each turn asks another endpoint, where there are several.

        Raises:
            Unavailable: no endpoint answers now.
        """
        if not self._turn:
            if self.monotonic() - self._turn_began < self.turn_seconds * (1 - 1 / ROUNDS_PER_TURN):
                return
            self._turn, self._turn_began, self._turns = self.lease_cache.list_ids(), self.monotonic(), self._turns + 1
            for leases in self.denied.values():
                leases.intersection_update(self._turn)
        taken, rest = self._turn[:LEASES_PER_ROUND], self._turn[LEASES_PER_ROUND:]
        usable = [lease_id for lease_id in taken if self._may_be_used(lease_id)]
        asked, self._turn = usable[:CALLS_PER_ROUND], usable[CALLS_PER_ROUND:] + rest
        if asked:
            await self._ask(await self._pick_endpoint(), asked)

    async def check_before_run(self, lease_id: LeaseId) -> None:
        """Ask the followed endpoint and one of another operator for a lease; what they deny is denied when this returns.

        Endpoints that do not answer stop no run: whether anything is served while they are silent is for readiness to say.
        """
        now = self.monotonic()
        if now - self._asked.get(lease_id, float("-inf")) < FRESH_SECONDS:
            return
        self._asked = {known: at for known, at in self._asked.items() if now - at < FRESH_SECONDS} | {lease_id: now}
        try:
            async with asyncio.timeout(BEFORE_RUN_SECONDS):
                followed = await self.endpoints.pick_endpoint()
                others = [other for other in self.endpoints.list_independent(followed) if other.verified][:1]
                await asyncio.gather(*(self._ask(endpoint, [lease_id]) for endpoint in (followed, *others)))
        except (Unavailable, TimeoutError) as problem:
            self._asked.pop(lease_id, None)
            log.warning("chain.lease_not_confirmed", lease_id=lease_id, reason=str(problem) or "no answer in time")

    def forget_denial(self, lease_id: LeaseId) -> None:
        """Leave the denial of a lease to its row, which shows it now."""
        for name, leases in self.denied.items():
            if lease_id in leases:
                leases.discard(lease_id)
                self.lease_cache.set_contested(_source_name(name), leases)

    async def _pick_endpoint(self) -> Endpoint:
        followed = await self.endpoints.pick_endpoint()
        ready = [followed, *(other for other in self.endpoints.list_others(followed) if other.verified)]
        return ready[self._turns % len(ready)]

    async def _ask(self, endpoint: Endpoint, leases: Sequence[LeaseId]) -> None:
        """Ask one endpoint for some leases, eight at a time.

        Raises:
            RpcFault: the endpoint failed; what was seen before it did stands.
        """
        gate = asyncio.Semaphore(AT_ONCE)
        denied = self.denied.setdefault(endpoint.name, set())
        try:
            async with asyncio.TaskGroup() as group:
                for lease_id in leases:
                    group.create_task(self._ask_for_one(endpoint, lease_id, denied, gate))
        except* RpcFault as faults:
            fault = faults.exceptions[0]
            assert isinstance(fault, RpcFault)
            self.endpoints.record_failure(endpoint, fault)
            raise fault from None
        finally:
            self.lease_cache.set_contested(_source_name(endpoint.name), denied)

    async def _ask_for_one(self, endpoint: Endpoint, lease_id: LeaseId, denied: set[LeaseId], gate: asyncio.Semaphore) -> None:
        async with gate:
            state = await fetch_lease_state(endpoint, self.contract, lease_id)
        if state is None:
            return
        (denied.add if state.status in DENIED_STATUSES else denied.discard)(lease_id)
        lease = self.lease_cache.peek(lease_id)
        if lease is not None and not state.equals_cached(lease):
            self.rereader.enqueue_leases([lease_id])

    def _may_be_used(self, lease_id: LeaseId) -> bool:
        lease = self.lease_cache.peek(lease_id)
        return lease is not None and lease.proof_status in COUNTED_PROOFS and lease.status not in FINAL_STATUSES


def _source_name(endpoint: str) -> str:
    """Name what contests a lease, apart from the cross-check of the same endpoint's logs."""
    return f"getLease at {endpoint}"
