"""The flows on a real database, everything else faked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pandacea.domain.ids import Address, AssetId, Hash32, LeaseKey
from pandacea.domain.job import Mode
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Outcome
from pandacea.files.generation import GenerationFile
from pandacea.files.results import ResultStore
from pandacea.files.upload_files import UploadFiles
from pandacea.flows.accept_job import Caller, ComputationRequest, QueueLimits, SubmitPorts
from pandacea.flows.approve_code import CodeApprovalPorts
from pandacea.flows.execute import ExecutePorts
from pandacea.flows.live_output import JobNotifier
from pandacea.flows.privacy import PrivacyService
from pandacea.flows.release import ReleasePorts
from pandacea.flows.sign_result import ResultSigner
from pandacea.flows.uploads import UploadQuota, UploadStore
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.products import SqlProductStore
from pandacea.store.unit_of_work import SqlDatabase
from pandacea_sdk.protocol.hashing import KeySigner
from tests.fakes import (
    CHAIN_ID,
    CONTRACT,
    EARNER,
    LEASE_ID,
    SPENDER,
    AllowAll,
    FakeCatalogue,
    FakeClock,
    FakeLeaseCache,
    FakeSandbox,
    cached_lease,
    product,
)

COMPLETED = Outcome(None, "", b"hello\n", exit_status=0, code_started=True)
LIMITS = Limits(time_seconds=60)
QUOTA = UploadQuota(max_bytes=1000, max_spender_bytes=2000, max_spender_files=3, max_total_bytes=3000, keep_seconds=100.0)


@dataclass
class World:
    """Everything a flow touches. `sandbox.outcome` is what the next run ends in."""

    submit: SubmitPorts
    execute: ExecutePorts
    lease_cache: FakeLeaseCache
    catalogue: FakeCatalogue
    sandbox: FakeSandbox
    clock: FakeClock
    release: ReleasePorts
    uploads: UploadStore
    approve: CodeApprovalPorts
    woken: list[None] = field(default_factory=list)

    @property
    def key(self) -> LeaseKey:
        """The lease of the tests."""
        return LeaseKey(CHAIN_ID, CONTRACT, LEASE_ID)


def computation_request(**changes: Any) -> ComputationRequest:
    """A request for asset `a`."""
    request = ComputationRequest(
        lease_id=LEASE_ID,
        code="print('hello')",
        inputs=((AssetId("a"), "table"),),
        params="{}",
        uploads={},
        product_version=None,
        mode=Mode.LIVE,
        body_sha256="0" * 64,
        idempotency_key=None,
        wants_token=False,
    )
    return replace(request, **changes)


def caller(number: int = 1, address: Address = SPENDER) -> Caller:
    """Request number `number`, signed by `address`."""
    return Caller(address, Hash32(f"0x{number:064x}"))


@pytest.fixture
async def world(tmp_path: Path, database: DatabaseEngine) -> World:
    """One approved lease for one computation; a sandbox whose runs complete."""
    return await make_world(tmp_path, database)


async def make_world(tmp_path: Path, engine: DatabaseEngine, *, fresh: bool = True) -> World:
    """Put the flows together as `app` does; not `fresh`: on a database that knows the assets already."""
    table = tmp_path / "a.csv"
    table.write_text("x\n1\n")
    clock, leases, sandbox = FakeClock(), FakeLeaseCache({LEASE_ID: cached_lease()}), FakeSandbox(COMPLETED)
    catalogue = FakeCatalogue(product(table))
    database, products = SqlDatabase(engine), SqlProductStore(engine)
    for asset in catalogue.product.assets.values() if fresh else ():
        await products.add_asset("p", asset, digest=asset.commitment, key=b"k", size=4, now=clock.now())
    privacy = PrivacyService(leases, catalogue, sandbox, EARNER, clock)
    woken: list[None] = []
    for name in ("results", "uploads"):
        (tmp_path / name).mkdir(exist_ok=True)
    results = ResultStore(tmp_path / "results", max_bytes=10**9, free_bytes=lambda _: 10**12)
    upload_files = UploadFiles(tmp_path / "uploads", free_bytes=lambda _: 10**12)
    notifier = JobNotifier()
    checker = AllowAll()
    return World(
        submit=SubmitPorts(
            chain_id=CHAIN_ID,
            contract=CONTRACT,
            database=database,
            leases=leases,
            catalogue=catalogue,
            privacy=privacy,
            checker=checker,
            clock=clock,
            limits=LIMITS,
            queue=QueueLimits(max_per_spender=4, max_total=8, max_wait_seconds=600.0),
            wake_workers=lambda: woken.append(None),
            results=results,
        ),
        execute=ExecutePorts(
            database=database,
            leases=leases,
            catalogue=catalogue,
            products=products,
            privacy=privacy,
            signer=ResultSigner(EARNER, KeySigner("11" * 32), await sandbox.start(), LIMITS, 1, "test"),
            clock=clock,
            limits=LIMITS,
            threads=1,
            results=results,
            upload_files=upload_files,
            notifier=notifier,
            generation_file=GenerationFile(tmp_path),
        ),
        lease_cache=leases,
        catalogue=catalogue,
        sandbox=sandbox,
        clock=clock,
        release=ReleasePorts(database, clock, results, notifier, hold_seconds=86_400.0),
        uploads=UploadStore(database, clock, upload_files, QUOTA),
        approve=CodeApprovalPorts(database, leases, catalogue, checker, clock),
        woken=woken,
    )
