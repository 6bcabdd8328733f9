"""Fakes of the ports, as small as what they promise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pandacea.domain.access import CachedLease, ChainStatus
from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.ids import Address, AssetId, BlockNumber, Hash32, LeaseId, ProductId, Timestamp, Wei
from pandacea.domain.lease import LeaseStatus
from pandacea.domain.outcome import Outcome
from pandacea.domain.product import Asset, Policy, Product, Release, Rules
from pandacea.flows.ports import CodeStarted, SandboxEvent, SandboxIdentity, SandboxJob

CHAIN_ID = 31337
CONTRACT = Address("0x" + "c0" * 20)
EARNER = Address("0x" + "ea" * 20)
SPENDER = Address("0x" + "5e" * 20)
STRANGER = Address("0x" + "99" * 20)
LEASE_ID = LeaseId("0x" + "1e" * 32)
PRODUCT_HASH = Hash32("0x" + "aa" * 32)
VERSION = Hash32("0x" + "bb" * 32)
NOW = 1_800_000_000.0


@dataclass
class FakeClock:
    """Time that the test moves."""

    time: float = NOW

    def now(self) -> float:
        return self.time


def cached_lease(**changes: Any) -> CachedLease:
    """An approved, proved lease of SPENDER with EARNER for one computation, expiring in a day."""
    lease = CachedLease(
        lease_id=LEASE_ID,
        spender=SPENDER,
        earner=EARNER,
        data_product_id=PRODUCT_HASH,
        expires_at=Timestamp(int(NOW) + 86_400),
        max_computations=1,
        status=LeaseStatus.APPROVED,
        committed_count=0,
        approved_block=BlockNumber(10),
        in_dispute=False,
        resolved_for_spender=False,
        proof_status=ProofStatus.SIGNED,
    )
    return replace(lease, **changes)


@dataclass
class FakeLeaseCache:
    """A lease cache whose leases the test sets; `change_lease` calls the subscribers."""

    leases: dict[LeaseId, CachedLease] = field(default_factory=dict)
    status: ChainStatus = field(
        default_factory=lambda: ChainStatus(BlockNumber(20), Timestamp(int(NOW)), BlockNumber(18), not_ready_reason=None)
    )
    listeners: list[Callable[[LeaseId | None], None]] = field(default_factory=list)

    def find_lease(self, lease_id: LeaseId) -> CachedLease | None:
        return self.leases.get(lease_id)

    def chain_status(self) -> ChainStatus:
        return self.status

    def knows_spender(self, address: Address) -> bool:
        return any(lease.spender == address for lease in self.leases.values())

    def subscribe(self, callback: Callable[[LeaseId | None], None]) -> Callable[[], None]:
        self.listeners.append(callback)
        return lambda: self.listeners.remove(callback)

    def change_lease(self, lease: CachedLease) -> None:
        self.leases[lease.lease_id] = lease
        for listener in list(self.listeners):
            listener(lease.lease_id)


def product(path: Path, *, rules: Rules | None = None) -> Product:
    """A product of two assets whose tables lie at `path`."""
    assets = {
        AssetId(name): Asset(AssetId(name), commitment=digit * 64, path=path, format="csv")
        for name, digit in (("a", "1"), ("b", "2"))
    }
    rules = rules or Rules(policy=Policy.ANY_CODE, release=Release.AUTO)
    return Product(ProductId("p"), PRODUCT_HASH, VERSION, rules, Wei(0), assets, {}, "0x")


@dataclass
class FakeCatalogue:
    """A catalogue that offers one product."""

    product: Product

    def find_by_hash(self, product_hash: Hash32) -> Product | None:
        return self.product if product_hash == self.product.product_hash else None

    def find_by_id(self, product_id: str) -> Product | None:
        return self.product if product_id == self.product.product_id else None

    def list_products(self) -> list[Product]:
        return [self.product]


@dataclass
class FakeSandbox:
    """Runs nothing: starts the code when `started`, waits for `gate`, then answers `outcome`, or raises it."""

    outcome: Outcome | Exception
    started: bool = True
    gate: asyncio.Event | None = None
    jobs: list[SandboxJob] = field(default_factory=list)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    destroyed: int = 0

    async def start(self) -> SandboxIdentity:
        return SandboxIdentity("fake", "sha256:" + "0" * 64, "0" * 64)

    async def run_job(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        self.jobs.append(job)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.started:
            on_event(CodeStarted())
        self.running.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.destroyed += 1
        return self.outcome

    async def stop(self) -> None:
        """Do nothing: nothing was opened."""


class AllowAll:
    """A code checker that finds nothing."""

    async def check_code(self, code: str) -> None:
        """Find nothing in any script."""
