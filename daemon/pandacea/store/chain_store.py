"""The follower's transaction over the chain and lease tables of one deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.chain_view import BlockRef, ChainEvent, ChainView
from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Unavailable
from pandacea.flows.chain_store import ApprovedRow, StoredProof
from pandacea.flows.unit_of_work import Channel, OutboxMessage
from pandacea.store import chain, leases, outbox, plain_keys
from pandacea.store.database_engine import DatabaseEngine, WriteTransaction

PAGE_ROWS: Final = 5_000


class SqlChainStore:
    """Rows of one LeaseAgreement on one chain."""

    def __init__(self, database: DatabaseEngine, chain_id: int, contract: Address) -> None:
        """`begin` before anything else."""
        self._database = database
        self.chain_id = chain_id
        self.contract = contract
        self.deployment = -1
        self.deploy_block: int | None = None
        """Where the contract begins, once it was followed."""
        self.may_have_proofs = True
        """False only while a first reading has certainly found none to ask for."""

    async def open_deployment(self, earner: Address, interface: str, deploy_block: int, base: BlockRef) -> ChainView:
        """Where to resume: the view in the database, or a new one from `base` when there is none or it is another Earner's.

        Raises:
            Unavailable: the database does not answer.
        """
        async with self.unit_of_work() as tx:
            row = await chain.find_deployment(tx.connection, self.chain_id, self.contract)
            if row is not None and row.earner == earner and row.interface == interface:
                self.deployment, self.deploy_block = row.id, row.deploy_block
                return await chain.load_view(tx.connection, row)
            self.deploy_block = deploy_block
            if row is None:
                self.deployment = await chain.insert_deployment(
                    tx.connection,
                    chain_id=self.chain_id,
                    contract=self.contract,
                    earner=earner,
                    interface=interface,
                    deploy_block=deploy_block,
                    base=base,
                )
                self.may_have_proofs = False
            else:
                self.deployment = row.id
                await chain.forget(tx.connection, row.id, earner=earner, interface=interface, base=base)
            await tx.commit()
        return ChainView(base)

    async def find_view(self) -> ChainView | None:
        """The view in the database, None when the contract was never followed here."""
        async with self.read_connection() as connection:
            row = await chain.find_deployment(connection, self.chain_id, self.contract)
            if row is None:
                return None
            self.deployment, self.deploy_block = row.id, row.deploy_block
            return await chain.load_view(connection, row)

    async def reset(self, earner: Address, interface: str, base: BlockRef) -> None:
        """Forget what was read of the chain and begin again from `base`; proofs and acknowledgements stay."""
        async with self.unit_of_work() as tx:
            await chain.forget(tx.connection, self.deployment, earner=earner, interface=interface, base=base)
            await tx.commit()

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[SqlChainUnitOfWork]:
        """One transaction; rolled back unless committed.

        Raises:
            Unavailable: the database failed; whether a commit under way became durable must be read back.
        """
        try:
            async with self._database.write_transaction() as tx:
                yield SqlChainUnitOfWork(tx, self)
        except (SQLAlchemyError, OSError) as problem:
            raise Unavailable(_failure_reason(problem)) from problem

    @asynccontextmanager
    async def read_connection(self) -> AsyncIterator[AsyncConnection]:
        """A consistent view for reading."""
        try:
            async with self._database.read_connection() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as problem:
            raise Unavailable(_failure_reason(problem)) from problem

    async def load_approved(self) -> AsyncIterator[Sequence[ApprovedRow]]:
        """Every approved lease as settled, page by page."""
        after = ""
        while True:
            async with self.read_connection() as connection:
                page = await leases.approved_page(connection, self.deployment, after, PAGE_ROWS)
            if page:
                yield page
            if len(page) < PAGE_ROWS:
                return
            after = page[-1][0]

    async def list_touched(self) -> list[LeaseId]:
        """The leases that have events above the base."""
        async with self.read_connection() as connection:
            return await chain.leases_above(connection, self.deployment, -1)

    async def find_known(self, ids: Sequence[LeaseId]) -> set[LeaseId]:
        """Those of the leases whose creation was seen."""
        async with self.read_connection() as connection:
            return await _find_known(connection, self, ids)

    async def list_plain_keys(self) -> set[Address]:
        """Every Spender who is known to be a plain key."""
        async with self.read_connection() as connection:
            return await plain_keys.list_plain_keys(connection)

    async def save_plain_key(self, address: Address, tx_hash: Hash32, at: int) -> None:
        """Keep that an address is a plain key, by a transaction that it signed."""
        async with self.unit_of_work() as tx:
            await plain_keys.save_plain_key(tx.connection, address, tx_hash, at)
            await tx.commit()


class SqlChainUnitOfWork:
    """A transaction of the follower: what it reads and writes, by name."""

    def __init__(self, tx: WriteTransaction, records: SqlChainStore) -> None:
        """Within `SqlChainStore.write`."""
        self._tx_outbox = outbox.OutboxTable(tx.connection)
        self._records = records
        self.connection = tx.connection
        self.after_commit: Callable[[Callable[[], None]], None] = tx.after_commit
        self.commit = tx.commit

    @property
    def _id(self) -> int:
        return self._records.deployment

    async def find_known(self, ids: Sequence[LeaseId]) -> set[LeaseId]:
        """Those of the leases whose creation was seen."""
        return await _find_known(self.connection, self._records, ids)

    async def list_leases_above(self, number: int) -> list[LeaseId]:
        """The leases with an event above a block."""
        return await chain.leases_above(self.connection, self._id, number)

    async def delete_above(self, number: int) -> None:
        """Forget blocks and events above a number."""
        await chain.undo(self.connection, self._id, number)

    async def append_blocks(self, blocks: Sequence[BlockRef], events: Sequence[ChainEvent]) -> None:
        """Hold blocks and events."""
        await chain.insert_blocks(self.connection, self._id, blocks)
        await chain.insert_events(self.connection, self._id, events)

    async def list_events(self, ids: Sequence[LeaseId]) -> list[ChainEvent]:
        """The events held of some leases, in order."""
        return await chain.events_of(self.connection, self._id, ids)

    async def list_events_up_to(self, last: int) -> list[ChainEvent]:
        """The events held up to a block, in order."""
        return await chain.events_to(self.connection, self._id, last)

    async def load_settled(self, ids: Sequence[LeaseId]) -> dict[LeaseId, LeaseRecord]:
        """The settled rows of some leases."""
        return await leases.settled(self.connection, self._id, ids, self._records.chain_id, self._records.contract)

    async def save_leases(self, held: Mapping[LeaseId, LeaseRecord], before: Mapping[LeaseId, LeaseRecord]) -> None:
        """Write settled rows."""
        await leases.save(self.connection, self._id, held, before)

    async def delete_settled(self, base: BlockRef) -> None:
        """Hold nothing up to `base` any longer."""
        await chain.settle(self.connection, self._id, base)

    async def save_view(self, view: ChainView) -> None:
        """Write how far the view is settled, safe and finalized."""
        await chain.save_cursor(self.connection, self._id, view)

    async def load_proofs(self, ids: Sequence[LeaseId]) -> dict[LeaseId, StoredProof]:
        """Why approvals of these leases count."""
        if not self._records.may_have_proofs:
            return {}
        rows = await leases.proofs(self.connection, self._id, ids)
        return {
            lease_id: StoredProof(ProofStatus(row[1]), row[2], None if row[3] is None else Hash32(row[3]), row[4])
            for lease_id, row in rows.items()
        }

    async def save_proof(self, lease_id: LeaseId, proof: StoredProof, at: int) -> None:
        """Keep why an approval counts."""
        self._records.may_have_proofs = True
        await leases.save_proof(
            self.connection,
            self._id,
            lease_id,
            trust=proof.status.value,
            terms=proof.terms_digest,
            approved_tx=proof.approved_tx,
            by=proof.attested_by,
            at=at,
        )

    async def insert_backfill_range(self, first: int, last: int, digest: str) -> None:
        """A range was settled from one answer: it waits to be read a second time."""
        await chain.insert_range(self.connection, self._id, first, last, digest)

    async def find_backfill_range(self) -> tuple[int, int, str] | None:
        """A range (first, last, digest) that waits for a second reading."""
        return await chain.oldest_range(self.connection, self._id)

    async def delete_backfill_range(self, first: int) -> None:
        """Two readings agree."""
        await chain.delete_range(self.connection, self._id, first)

    async def prune_waiting(self, before: int) -> int:
        """Forget leases nobody approved that are older than a time (Unix seconds)."""
        return await leases.prune_waiting(self.connection, self._id, before)

    async def put_event_message(self, seen: ChainEvent, topic: str, payload: dict[str, Any], now: float) -> None:
        """Put one life-cycle message into the outbox, once per event: a reorg that brings it back does not repeat it."""
        key = f"chain:{self._id}:{seen.block_hash}:{seen.log_index}:{seen.part}"
        if not await outbox.has_key(self.connection, key):
            await self._tx_outbox.put_message(OutboxMessage(Channel.MQTT, key, topic, payload), now)


async def list_followed_chains(database: DatabaseEngine, contract: Address) -> list[int]:
    """The ids of the chains on which a contract of this address was followed here."""
    async with database.read_connection() as connection:
        return await chain.chains_of(connection, contract)


async def _find_known(connection: AsyncConnection, records: SqlChainStore, ids: Sequence[LeaseId]) -> set[LeaseId]:
    if not ids:
        return set()
    found = await chain.created_of(connection, records.deployment, ids)
    rest = [lease_id for lease_id in ids if lease_id not in found]
    return found | await leases.existing(connection, records.deployment, rest)


def _failure_reason(problem: SQLAlchemyError | OSError) -> str:
    # Spenders are told this: not where the database is.
    cause = problem.orig if isinstance(problem, DBAPIError) else problem
    return f"The node's database does not answer ({type(cause).__name__})."
