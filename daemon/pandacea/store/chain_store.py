"""The follower's database: the rows of one deployment, and the transactions that change them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.chain_view import BlockRef, ChainEvent, ChainView
from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Unavailable
from pandacea.flows.following.chain_store import ApprovedLease
from pandacea.flows.messages import lease_event
from pandacea.flows.unit_of_work import Channel
from pandacea.store import cross_checks, plain_keys
from pandacea.store.bulk import with_placeholders
from pandacea.store.chain import ChainTable
from pandacea.store.database_engine import DatabaseEngine, WriteTransaction
from pandacea.store.deployments import DeploymentRow, DeploymentScope, DeploymentTable
from pandacea.store.leases import LeaseTable
from pandacea.store.outbox import OutboxTable

PAGE_ROWS: Final = 5_000
"""Leases read at once when the lease cache is filled."""


class SqlChainStore:
    """`flows.following.chain_store.ChainStore` on SQLite or PostgreSQL."""

    def __init__(
        self,
        database: DatabaseEngine,
        chain_id: int,
        contract: Address,
        channels: Collection[Channel] = frozenset(Channel),
        webhook_events: Collection[str] = (),
    ) -> None:
        """Nothing is read before `open_deployment` or `find_view`. `channels`, `webhook_events`: as of `SqlDatabase`."""
        self._database = database
        self._channels, self._webhook_events = channels, webhook_events
        self.chain_id = chain_id
        self.contract = contract
        self.scope = DeploymentScope(chain_id, contract)
        self.deploy_block: int | None = None
        """The contract's first block; None before it was first followed."""

    async def open_deployment(self, earner: Address, interface: str, deploy_block: int, base: BlockRef) -> ChainView:
        """Return the view to resume from: the stored one, or a new one at `base` when there is none or it is another Earner's.

        Raises:
            Unavailable: the database does not answer.
        """
        async with self.unit_of_work() as tx:
            deployments = DeploymentTable(tx.connection)
            row = await deployments.find_deployment(self.chain_id, self.contract)
            if row is not None and row.earner == earner and row.interface == interface:
                return await self._resume(tx.chain, row)
            self.deploy_block = deploy_block
            if row is None:
                self.scope.id = await deployments.insert_deployment(
                    self.scope, earner=earner, interface=interface, deploy_block=deploy_block, base=base
                )
                self.scope.may_have_proofs = False
            else:
                self.scope.id = row.key
                await _reset(tx, self.scope.id, earner, interface, base)
            await tx.commit()
        return ChainView(base)

    async def find_view(self) -> ChainView | None:
        """Return the stored view, or None when the contract was never followed here."""
        async with self.read_connection() as connection:
            row = await DeploymentTable(connection).find_deployment(self.chain_id, self.contract)
            return None if row is None else await self._resume(ChainTable(connection, self.scope), row)

    async def _resume(self, chain: ChainTable, row: DeploymentRow) -> ChainView:
        self.scope.id, self.deploy_block = row.key, row.deploy_block
        return await chain.load_view(row)

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[SqlChainUnitOfWork]:
        """Open a transaction, rolled back unless committed.

        Raises:
            Unavailable: the database failed; whether a commit under way became durable must be read back.
        """
        try:
            async with self._database.write_transaction() as tx:
                yield SqlChainUnitOfWork(tx, self.scope, OutboxTable(tx.connection, self._channels, self._webhook_events))
        except (SQLAlchemyError, OSError) as problem:
            raise Unavailable(_failure_reason(problem)) from problem

    @asynccontextmanager
    async def read_connection(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection that sees one state of the database.

        Raises:
            Unavailable: the database does not answer.
        """
        try:
            async with self._database.read_connection() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as problem:
            raise Unavailable(_failure_reason(problem)) from problem

    async def load_approved(self) -> AsyncIterator[Sequence[ApprovedLease]]:
        """Yield every approved lease as settled, page by page."""
        after: LeaseId | None = None
        while True:
            async with self.read_connection() as connection:
                page = await LeaseTable(connection, self.scope).load_approved_page(after, PAGE_ROWS)
            if page:
                yield page
            if len(page) < PAGE_ROWS:
                return
            after = page[-1].lease_id

    async def list_touched(self) -> list[LeaseId]:
        """List the leases that have events above the base."""
        async with self.read_connection() as connection:
            return await ChainTable(connection, self.scope).list_leases_above(-1)

    async def find_known(self, ids: Sequence[LeaseId]) -> set[LeaseId]:
        """Return those of the leases whose creation was seen."""
        async with self.read_connection() as connection:
            return await _find_known(ChainTable(connection, self.scope), LeaseTable(connection, self.scope), ids)

    async def list_waiting(self) -> list[LeaseId]:
        """List the leases that nobody approved when they were settled, and those created since."""
        async with self.read_connection() as connection:
            return await LeaseTable(connection, self.scope).list_waiting()

    async def list_payable(self) -> list[LeaseId]:
        """List settled leases that are open, have a price, and have a committed result."""
        async with self.read_connection() as connection:
            return await LeaseTable(connection, self.scope).list_payable()

    async def load_rows_and_events(self, ids: Sequence[LeaseId]) -> tuple[dict[LeaseId, LeaseRecord], list[ChainEvent]]:
        """Return the settled rows of some leases and their events above the base, both of one moment."""
        async with self.read_connection() as connection:
            settled = await LeaseTable(connection, self.scope).load_settled(ids)
            return settled, await ChainTable(connection, self.scope).list_events(ids)

    async def load_cross_check(self, endpoint: str) -> tuple[int, dict[LeaseId, bool]] | None:
        """Return up to which block an endpoint's denials were read, and lease -> whether it is denied there; None: not yet."""
        async with self.read_connection() as connection:
            return await cross_checks.load_cross_check(connection, self.scope.id, endpoint)

    async def save_cross_check(self, endpoint: str, settled_to: int, denials: Mapping[LeaseId, bool]) -> None:
        """Store up to which block an endpoint's denials were read, and what they are."""
        async with self.unit_of_work() as tx:
            await cross_checks.save_cross_check(tx.connection, self.scope.id, endpoint, settled_to, denials)
            await tx.commit()

    async def list_plain_keys(self) -> set[Address]:
        """List every Spender that is known to be a plain key."""
        async with self.read_connection() as connection:
            return await plain_keys.list_plain_keys(connection)

    async def save_plain_key(self, address: Address, tx_hash: Hash32, at: int) -> None:
        """Store that an address is a plain key, with a transaction that it signed; `at` in Unix seconds."""
        async with self.unit_of_work() as tx:
            await plain_keys.save_plain_key(tx.connection, address, tx_hash, at)
            await tx.commit()


class SqlChainUnitOfWork:
    """A transaction of the follower on SQLite or PostgreSQL."""

    def __init__(self, tx: WriteTransaction, scope: DeploymentScope, outbox: OutboxTable) -> None:
        """Read and write the rows of one deployment through one transaction."""
        self.connection = tx.connection
        self.chain = ChainTable(tx.connection, scope)
        self.leases = LeaseTable(tx.connection, scope)
        self.after_commit = tx.after_commit
        self.commit = tx.commit
        self._outbox = outbox
        self._scope = scope

    async def find_known(self, ids: Sequence[LeaseId]) -> set[LeaseId]:
        """Return those of the leases whose creation was seen."""
        return await _find_known(self.chain, self.leases, ids)

    async def put_lease_event(self, seen: ChainEvent, now: float) -> None:
        """Tell an event to those who listen, once: a reorganisation that brings it back into the same block does not repeat it."""
        await self._outbox.put_event(lease_event(seen, self._scope.chain_id, self._scope.contract), now)


async def list_followed_chains(database: DatabaseEngine, contract: Address) -> list[int]:
    """List the ids of the chains on which a contract of this address was followed here."""
    async with database.read_connection() as connection:
        return await DeploymentTable(connection).list_chain_ids(contract)


async def count_chain_rows(database: DatabaseEngine, chain_id: int, contract: Address) -> dict[str, int] | None:
    """Count what was read of a contract: its leases, events and proofs, and the last block; None: it was never followed here."""
    async with database.read_connection() as connection:
        row = await DeploymentTable(connection).find_deployment(chain_id, contract)
        if row is None:
            return None
        counts: dict[str, int] = {
            "block": (await ChainTable(connection, DeploymentScope(chain_id, contract, row.key)).load_view(row)).tip.number
        }
        for name, table, condition in _COUNTED:
            query = with_placeholders(connection, f"SELECT COUNT(*) FROM {table} WHERE deployment = ?{condition}")  # noqa: S608 - our own names
            counts[name] = int((await connection.exec_driver_sql(query, (row.key,))).scalar_one())
        return counts


_COUNTED: Final = (
    ("leases", "lease", ""),
    ("events", "chain_event", ""),
    ("proofs", "lease_proof", ""),
    ("acknowledged", "lease_proof", f" AND trust = '{ProofStatus.ACKNOWLEDGED}'"),
)


async def delete_deployment(database: DatabaseEngine, chain_id: int, contract: Address) -> None:
    """Delete all that was read of a contract, proofs and acknowledgements too: the next start follows it as if for the first time."""
    async with database.write_transaction() as tx:
        deployments = DeploymentTable(tx.connection)
        row = await deployments.find_deployment(chain_id, contract)
        if row is not None:
            scope = DeploymentScope(chain_id, contract, row.key)
            await ChainTable(tx.connection, scope).delete_all()
            leases = LeaseTable(tx.connection, scope)
            await leases.delete_all()
            await leases.delete_proofs()
            await cross_checks.delete_cross_checks(tx.connection, row.key)
            await deployments.delete_deployment(row.key)
        await tx.commit()


async def _reset(tx: SqlChainUnitOfWork, deployment: int, earner: Address, interface: str, base: BlockRef) -> None:
    await tx.chain.delete_all()
    await tx.leases.delete_all()
    await cross_checks.delete_cross_checks(tx.connection, deployment)
    await DeploymentTable(tx.connection).update_owner(deployment, earner=earner, interface=interface)
    await tx.chain.save_view(ChainView(base))


async def _find_known(chain: ChainTable, leases: LeaseTable, ids: Sequence[LeaseId]) -> set[LeaseId]:
    if not ids:
        return set()
    found = await chain.find_created(ids)
    rest = [lease_id for lease_id in ids if lease_id not in found]
    return found | await leases.find_existing(rest)


def _failure_reason(problem: SQLAlchemyError | OSError) -> str:
    # Spenders read this, so it does not say where the database is.
    cause = problem.orig if isinstance(problem, DBAPIError) else problem
    return f"The node's database does not answer ({type(cause).__name__})."
