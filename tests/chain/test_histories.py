"""Answers are exact at every moment: random histories with reorgs, crashes and restarts, compared with a model that folds from zero."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak

from pandacea.chain.confidence import Confidence, ConfidenceKind
from pandacea.chain.events import address_topic
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc_faults import RpcFault
from pandacea.chain.source import ChainSource
from pandacea.domain.access import CachedLease, ChainStatus, ProductFacts, may_continue, may_read, may_run
from pandacea.domain.approval_proof import ProofStatus, digest_lease_terms
from pandacea.domain.chain_view import BEFORE_GENESIS, NO_HASH, BlockRef
from pandacea.domain.ids import Address, AssetId, BlockNumber, Hash32, LeaseId, LeaseKey, Timestamp
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Unavailable
from pandacea.flows.following.approval_proof import save_proof
from pandacea.flows.following.chain_store import StoredProof
from pandacea.flows.following.follow import apply_update, refresh_leases
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from tests.chain.anvil import EARNER, PRODUCT, SPENDER, STRANGER, abi_word
from tests.chain.emitter import TOPIC, lease_number
from tests.chain.simulated import CONTRACT, SimulatedChain, SimulatedEndpoint, events_of, fold
from tests.postgres import PostgresServer

HISTORIES = int(500 * float(os.environ.get("PANDACEA_TEST_SCALE", "1")))
FIRST_SEED = int(os.environ.get("PANDACEA_TEST_SEED", "20261124"))
ACTIONS = 14
ME = Address(EARNER.address.lower())
SPENDERS = [Address(SPENDER.address.lower()), Address(STRANGER.address.lower())]
LEASES = [lease_number(number) for number in range(5)]


class StoppedClock:
    """A clock that never moves."""

    def now(self) -> float:
        return 1_700_000_100.0


class CrashError(Exception):
    """Stands for the death of the process."""


def some_log(rng: random.Random) -> tuple[tuple[str, ...], str]:
    """Return one event of one of the leases, more often than not one that an honest contract would write next."""
    lease = rng.choice(LEASES)
    mine = address_topic(rng.choices([ME, STRANGER.address.lower()], [9, 1])[0])
    spender = address_topic(SPENDERS[int(lease[-1], 16) % 2])
    computation = "0x" + keccak(bytes([rng.randrange(4)])).hex()
    choices: list[tuple[int, tuple[str, ...], str]] = [
        (6, (TOPIC["LeaseCreated"], lease, spender, mine), "0x" + abi_word(5)),
        (5, (TOPIC["LeaseTerms"], lease, PRODUCT), "0x" + abi_word(1_800_000_000) + abi_word(3)),
        (8, (TOPIC["LeaseApproved"], lease), "0x"),
        (4, (TOPIC["ResultCommitted"], lease, computation), "0x" + "11" * 32),
        (2, (TOPIC["LeaseExecuted"], lease), "0x"),
        (2, (TOPIC["LeaseCancelled"], lease), "0x"),
        (1, (TOPIC["LeaseFinalized"], lease, mine), "0x" + abi_word(0)),
        (2, (TOPIC["DisputeRaised"], lease, spender, mine), "0x" + abi_word(64) + abi_word(9) + abi_word(0)),
        (2, (TOPIC["DisputeResolved"], lease), "0x" + abi_word(rng.randrange(2)) + abi_word(9)),
        (1, (TOPIC["LeaseApproved"], lease, lease), "0x"),
    ]
    _, topics, data = rng.choices(choices, [weight for weight, _, _ in choices])[0]
    return topics, data


class History:
    """One node over one simulated chain."""

    def __init__(self, seed: int, database: DatabaseEngine) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.database = database
        self.chain = SimulatedChain(finality=self.rng.randrange(2, 9))
        self.endpoint = SimulatedEndpoint(self.chain, self.rng, fault_rate=self.rng.choice([0.0, 0.0, 0.05]))
        self.confidence = self.rng.choice(
            [
                Confidence(ConfidenceKind.SAFE),
                Confidence(ConfidenceKind.FINALIZED),
                Confidence(ConfidenceKind.CONFIRMATIONS, self.rng.randrange(3)),
            ]
        )
        self.settle_every = self.rng.randrange(1, 5)
        self.proved: dict[str, tuple[str, str | None]] = {}

    async def start(self) -> None:
        """Start a new process over the same database."""
        self.chain_store = SqlChainStore(self.database, 1, CONTRACT)
        self.lease_cache = InMemoryLeaseCache(StoppedClock(), self.confidence, max_head_age=0, max_silence=1e9, max_behind=10**6)
        self.source = ChainSource(
            CONTRACT,
            ME,
            LogReader(CONTRACT, spans={self.endpoint.url: self.rng.choice([1, 3, 50])}),
            None,
            lambda endpoint: endpoint,
            settle_every=self.settle_every,
            on_head=self.lease_cache.record_head,
        )
        self.view = await self.chain_store.open_deployment(ME, "v1", 0, BlockRef(BEFORE_GENESIS, NO_HASH, NO_HASH, Timestamp(0)))
        async for page in self.chain_store.load_approved():
            self.lease_cache.load_rows(page)
        await refresh_leases(await self.chain_store.list_touched(), self.view, self.chain_store, self.lease_cache)
        self.lease_cache.not_ready_reason = None
        self.lease_cache.record_head(self.view.tip)
        self.check()

    async def act(self) -> None:
        """Make something happen to the chain, to the node, or to both."""
        what = self.rng.choices(["mine", "reorg", "follow", "crash", "restart", "lag", "prove"], [6, 3, 8, 2, 1, 1, 2])[0]
        if what == "mine":
            for _ in range(self.rng.randrange(1, 5)):
                self.chain.mine([some_log(self.rng) for _ in range(self.rng.choice([0, 0, 1, 2, 4]))])
        elif what == "reorg":
            depth = self.rng.randrange(1, 8)
            self.chain.drop_blocks(depth)
            for _ in range(self.rng.randrange(depth + 2)):
                self.chain.mine([some_log(self.rng) for _ in range(self.rng.choice([0, 1, 3]))])
        elif what == "lag":
            self.endpoint.behind = self.rng.choice([0, 0, 1, 3])
        elif what == "prove":
            await self.prove()
        elif what == "restart":
            await self.start()
        else:
            await self.follow(crash=what == "crash")

    async def follow(self, *, crash: bool) -> None:
        """Apply updates until there is none, or until the process dies in the middle of one."""
        for _ in range(40):
            try:
                step = await self.source.plan_update(self.endpoint, self.view)
            except RpcFault:
                continue
            if step is None:
                return
            try:
                if crash and self.rng.random() < 0.5:
                    async with self.dying():
                        self.view = await apply_update(step, self.view, self.chain_store, self.lease_cache, None)
                else:
                    self.view = await apply_update(step, self.view, self.chain_store, self.lease_cache, None)
            except (CrashError, Unavailable):
                await self.start()
                return
            self.check()

    @asynccontextmanager
    async def dying(self) -> AsyncIterator[None]:
        """Die before one of the statements of a transaction, or between its commit and the cache."""
        from sqlalchemy import event

        engine = self.database._writer.sync_engine
        left = self.rng.randrange(1, 14)

        def executed(*_: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise CrashError

        publish, self.lease_cache.apply_changes = self.lease_cache.apply_changes, self._die  # type: ignore[assignment,method-assign,unused-ignore]
        event.listen(engine, "before_cursor_execute", executed)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", executed)
            self.lease_cache.apply_changes = publish  # type: ignore[method-assign]

    def _die(self, *_: Any) -> None:
        raise CrashError

    async def prove(self) -> None:
        """Store a proof of some approved lease."""
        held = self.model()
        approved = [lease for lease, one in held.items() if one.lease.approved_block is not None]
        if approved:
            lease = self.rng.choice(approved)
            proof = StoredProof(ProofStatus.SIGNED, digest_lease_terms(held[lease].lease), held[lease].approved_tx, "test")
            await save_proof(LeaseId(lease), proof, 0, self.chain_store, self.lease_cache)
            self.proved[lease] = (proof.terms_digest, proof.approved_tx)
            self.check()

    # -- the model: everything from zero, every time

    def model(self) -> dict[str, LeaseRecord]:
        """Fold every event of the branch that ends in the node's tip, from genesis on."""
        tip = self.view.tip
        branch = self.chain.ever[tip.hash].branch() if tip.number >= 0 else []
        events = events_of(branch, address_topic(ME))
        held: dict[str, LeaseRecord] = {}
        for seen in events:
            lease = seen.event.lease_id
            after = fold(held.get(lease), seen, LeaseKey(1, CONTRACT, lease), 0)
            if after is not None:
                held[lease] = after
        return held

    def confident(self) -> int:
        """Compute the newest block whose approvals count, from everything the chain showed."""
        tip = self.view.tip.number
        if self.confidence.kind is ConfidenceKind.CONFIRMATIONS:
            return tip - self.confidence.confirmations
        return min(
            tip,
            self.view.finalized if self.confidence.kind is ConfidenceKind.FINALIZED else max(self.view.safe, self.view.finalized),
        )

    def check(self) -> None:
        """Check that every question about every lease has the model's answer now."""
        held = self.model()
        standing = self.lease_cache.chain_status()
        assert self.lease_cache.chain_view == self.view
        expected = ChainStatus(self.view.tip.number, self.view.tip.timestamp, BlockNumber(self.confident()), None)
        assert replace(standing, retry_after=5) == expected, self.seed
        for lease in LEASES:
            want = self._known(held.get(lease), lease)
            have = self.lease_cache.peek(lease)
            assert have == want, f"seed {self.seed}: {lease}: memory {have}, model {want}"
            for caller in SPENDERS:
                for mine, theirs in zip(_answers(have, standing, caller), _answers(want, expected, caller), strict=True):
                    assert mine == theirs, f"seed {self.seed}"
        for caller in SPENDERS:
            known = any(one.lease.approved_block is not None and one.lease.spender == caller for one in held.values())
            assert self.lease_cache.knows_spender(caller) == known, f"seed {self.seed}"

    def _known(self, held: LeaseRecord | None, lease: str) -> CachedLease | None:
        if held is None or held.lease.approved_block is None:
            return None
        kept = self.proved.get(lease)
        signed = kept == (digest_lease_terms(held.lease), held.approved_tx)
        return CachedLease.from_lease(held.lease, ProofStatus.SIGNED if signed else ProofStatus.PENDING)


def _answers(lease: CachedLease | None, standing: ChainStatus, caller: Address) -> tuple[Any, Any, Any]:
    facts = ProductFacts(PRODUCT, frozenset({AssetId("a")}), Hash32("v"))
    run = may_run(
        lease,
        standing,
        caller=caller,
        earner=ME,
        product=facts,
        assets=[AssetId("a")],
        product_version=None,
        used=0,
        reserved=0,
        time_limit=60,
        clock=1_700_000_100,
    )
    return run, may_continue(lease, standing), may_read(lease, standing, caller=caller)


async def play(seed: int, database: DatabaseEngine) -> bool:
    """Play one history to its end; return whether anything of it was settled."""
    history = History(seed, database)
    try:
        await history.start()
        for _ in range(ACTIONS):
            await history.act()
        history.endpoint.behind, history.endpoint.fault_rate = 0, 0.0
        history.chain.mine([])
        await history.follow(crash=False)
        assert history.view.tip.hash == history.chain.head.hash, f"seed {seed}: it ends at the head"
        await history.start()
    except (AssertionError, KeyError) as problem:
        raise AssertionError(f"seed {seed}: {problem}") from problem
    return history.view.base.number > 0


async def test_random_histories_agree_with_a_model_from_zero() -> None:
    """>= 500 random histories: after every step of each, every answer from memory is what folding everything from zero gives.

    A failure names its seed: PANDACEA_TEST_SEED=<seed> PANDACEA_TEST_SCALE=0.002 runs it alone.
    """
    memory = Path("/dev/shm")  # the crashes here are between statements; killed processes and real disks are tested elsewhere
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        template = folder / "template.db"
        database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{template}")
        await upgrade(database)
        await database.close()
        settled = 0
        for seed in range(FIRST_SEED, FIRST_SEED + max(1, HISTORIES)):
            place = folder / "history.db"
            shutil.copy(template, place)
            database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{place}")
            try:
                settled += await play(seed, database)
            finally:
                await database.close()
                for leftover in folder.glob("history.db*"):
                    leftover.unlink()
        assert settled > HISTORIES // 2, "most histories were long enough for something to settle"
    finally:
        shutil.rmtree(folder)


async def test_random_histories_agree_on_postgresql(postgres: PostgresServer) -> None:
    """The same holds with the rows on a PostgreSQL server."""
    for seed in range(FIRST_SEED, FIRST_SEED + max(3, HISTORIES // 20)):
        name = await postgres.create_migrated_database()
        database = await DatabaseEngine.open(postgres.url(name))
        try:
            await play(seed, database)
        finally:
            await database.close()
            await postgres.recycle_database(name)
