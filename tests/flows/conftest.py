"""The journeys on a real database, everything else faked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pandacea.domain.ids import AssetId, Hash32, LeaseKey
from pandacea.domain.job import Mode
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Outcome
from pandacea.flows.approve_code import CodeApprovalPorts
from pandacea.flows.execute import ExecutePorts
from pandacea.flows.job_notifier import JobNotifier
from pandacea.flows.privacy import LeasedPrivacy
from pandacea.flows.release import ReleasePorts
from pandacea.flows.result_store import ResultStore
from pandacea.flows.sign_result import ResultSigner
from pandacea.flows.submit import Caller, ComputationRequest, QueueLimits, SubmitPorts
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
ROOM = UploadQuota(max_bytes=1000, max_spender_bytes=2000, max_spender_files=3, max_total_bytes=3000, keep_seconds=100.0)


@dataclass
class World:
    """Everything a journey touches. `sandbox.outcome` is what the next run ends in."""

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


def computation_request(**changes: object) -> ComputationRequest:
    """A request for asset `a`."""
    values: dict[str, object] = {
        "lease_id": LEASE_ID,
        "code": "print('hello')",
        "inputs": ((AssetId("a"), "table"),),
        "params": "{}",
        "uploads": {},
        "product_version": None,
        "mode": Mode.LIVE,
        "body_sha256": "0" * 64,
        "idempotency_key": None,
        "wants_token": False,
        **changes,
    }
    return ComputationRequest(**values)  # type: ignore[arg-type]


def caller(number: int = 1, address: str = SPENDER) -> Caller:
    """Request number `number`, signed by `address`."""
    return Caller(address, Hash32(f"0x{number:064x}"))  # type: ignore[arg-type]


@pytest.fixture
async def world(tmp_path: Path, database: DatabaseEngine) -> World:
    """One approved lease for one computation; a sandbox whose runs complete."""
    return await make_world(tmp_path, database)


async def make_world(tmp_path: Path, database: DatabaseEngine, *, fresh: bool = True) -> World:
    """Put the journeys together as `app` does; not `fresh`: on a database that knows the assets already."""
    table = tmp_path / "a.csv"
    table.write_text("x\n1\n")
    clock, book, sandbox = FakeClock(), FakeLeaseCache({LEASE_ID: cached_lease()}), FakeSandbox(COMPLETED)
    catalogue = FakeCatalogue(product(table))
    books, products = SqlDatabase(database), SqlProductStore(database)
    for asset in catalogue.product.assets.values() if fresh else ():
        await products.add_asset("p", asset, digest=asset.commitment, key=b"k", size=4, now=clock.now())
    privacy = LeasedPrivacy(book, catalogue, sandbox, EARNER, clock)
    woken: list[None] = []
    shelf = ResultStore(tmp_path / "results", max_bytes=10**9, free_bytes=lambda _: 10**12)
    for name in ("results", "uploads"):
        (tmp_path / name).mkdir(exist_ok=True)
    uploads = UploadStore(books, clock, tmp_path / "uploads", ROOM, free_bytes=lambda _: 10**12)
    watch = JobNotifier()
    checker = AllowAll()
    queue = QueueLimits(4, 8, 600.0)
    submit_ports = SubmitPorts(
        CHAIN_ID, CONTRACT, books, book, catalogue, privacy, checker, clock, LIMITS, queue, lambda: woken.append(None), shelf
    )
    sealer = ResultSigner(EARNER, KeySigner("11" * 32), await sandbox.start(), LIMITS, 1, "test")
    execute_ports = ExecutePorts(
        books,
        book,
        catalogue,
        products,
        privacy,
        sealer,
        clock,
        LIMITS,
        1,
        shelf,
        uploads.folder,
        post_results=True,
        notifier=watch,
    )
    release = ReleasePorts(books, clock, shelf, watch, post_results=True, hold_seconds=86_400.0)
    approve = CodeApprovalPorts(books, book, catalogue, checker, clock)
    return World(submit_ports, execute_ports, book, catalogue, sandbox, clock, release, uploads, approve, woken)
