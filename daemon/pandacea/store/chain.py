"""The chain as the node keeps it: the blocks above the settled part by hash, and their events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from typing import Any, Final, get_args

import structlog
from sqlalchemy import BigInteger, Column, CursorResult, Float, Index, Text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.chain_view import BlockRef, ChainEvent, ChainView
from pandacea.domain.ids import BlockNumber, Hash32, LeaseId, Timestamp
from pandacea.domain.lease import LeaseEvent, is_well_formed
from pandacea.store.bulk import DbRow, execute_many, select_in, upsert_statement, with_placeholders
from pandacea.store.deployments import DeploymentRow, DeploymentScope

log = structlog.get_logger(__name__)


class ChainBlockRow(SQLModel, table=True):
    """A block above the settled part, by hash."""

    __tablename__ = "chain_block"

    deployment: int = Field(primary_key=True)
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hash: str = Field(max_length=66)
    parent: str = Field(max_length=66)
    timestamp: int = Field(sa_column=Column(BigInteger, nullable=False))


class ChainEventRow(SQLModel, table=True):
    """An event above the settled part. The key is the log's identity, so inserting it twice changes nothing."""

    __tablename__ = "chain_event"
    __table_args__ = (
        Index("chain_event_lease", "deployment", "lease_id"),
        Index("chain_event_block", "deployment", "block_number"),
    )

    deployment: int = Field(primary_key=True)
    block_hash: str = Field(primary_key=True, max_length=66)
    log_index: int = Field(primary_key=True)
    part: int = Field(primary_key=True)
    block_number: int = Field(sa_column=Column(BigInteger, nullable=False))
    tx_hash: str = Field(max_length=66)
    lease_id: str = Field(max_length=66)
    kind: str = Field(max_length=32)
    """Name of the Solidity event."""
    arguments: str = Field(sa_column=Column(Text, nullable=False))
    """Its arguments in order, as a JSON array."""


class SettledRangeRow(SQLModel, table=True):
    """A settled range of blocks that is to be read again; deleted once a later reading agrees."""

    __tablename__ = "settled_range"

    deployment: int = Field(primary_key=True)
    first: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    last: int = Field(sa_column=Column(BigInteger, nullable=False))
    digest: str = Field(max_length=64)
    """sha-256 over the identities of the events in the last answer, in order."""
    due_at: float = Field(default=0.0, sa_column=Column(Float, nullable=False, server_default="0"))
    """Unix seconds from which it is read again; 0: at once, because it was settled from one answer."""


_range: Final = SQLModel.metadata.tables["settled_range"]
_block: Final = SQLModel.metadata.tables["chain_block"]
_event: Final = SQLModel.metadata.tables["chain_event"]

_EVENT_TYPES: Final[dict[str, Callable[..., LeaseEvent]]] = {kind.__name__: kind for kind in get_args(LeaseEvent)}
_SELECT_EVENTS: Final = (
    "SELECT block_number, block_hash, log_index, tx_hash, kind, arguments, part FROM chain_event WHERE deployment = ? AND "
)


def _read_events(rows: Iterable[DbRow]) -> list[ChainEvent]:
    """Read rows as events, in the order they happened; an event with a malformed id is left out, for no lease can be changed by it."""
    found = []
    for number, block_hash, index, transaction, kind, arguments, part in rows:
        event = _EVENT_TYPES[kind](*json.loads(arguments))
        if is_well_formed(event):
            found.append(ChainEvent(BlockNumber(number), Hash32(block_hash), index, Hash32(transaction), event, part))
        else:
            log.error("chain.event_unreadable", kind=kind, block=number, log_index=index)
    return sorted(found, key=lambda seen: seen.position)


class ChainTable:
    """Blocks, events and backfill ranges of one deployment as one connection sees them."""

    def __init__(self, connection: AsyncConnection, scope: DeploymentScope) -> None:
        """Reads may use any connection; writes need the transaction's."""
        self._connection = connection
        self._scope = scope

    async def load_view(self, row: DeploymentRow) -> ChainView:
        """Return the view as it was last committed."""
        base = BlockRef(BlockNumber(row.base_number), Hash32(row.base_hash), Hash32(row.base_parent), Timestamp(row.base_timestamp))
        query = "SELECT number, hash, parent, timestamp FROM chain_block WHERE deployment = ? AND number > ? ORDER BY number"
        rows: Sequence[DbRow] = (await self._execute(query, base.number)).all()
        blocks = tuple(BlockRef(number, block_hash, parent, time) for number, block_hash, parent, time in rows)
        return ChainView(base, blocks, BlockNumber(row.safe_number), BlockNumber(row.finalized_number))

    async def save_view(self, view: ChainView) -> None:
        """Write how far the view is settled, safe and finalized."""
        sql = (
            "UPDATE deployment SET base_number = ?, base_hash = ?, base_parent = ?, base_timestamp = ?, "
            "safe_number = ?, finalized_number = ? WHERE id = ?"
        )
        base = view.base
        values = (base.number, base.hash, base.parent, base.timestamp, view.safe, view.finalized, self._scope.id)
        await self._connection.exec_driver_sql(with_placeholders(self._connection, sql), values)

    async def append_blocks(self, blocks: Sequence[BlockRef], events: Sequence[ChainEvent]) -> None:
        """Insert blocks by hash, and events by their log's identity; an event that is there already is left as it is."""
        deployment = self._scope.id
        block_rows = [(deployment, block.number, block.hash, block.parent, block.timestamp) for block in blocks]
        await execute_many(self._connection, upsert_statement(self._connection, _block), block_rows)
        event_rows = [
            (
                deployment,
                seen.block_hash,
                seen.log_index,
                seen.part,
                seen.block,
                seen.transaction,
                seen.event.lease_id,
                type(seen.event).__name__,
                json.dumps(astuple(seen.event)),
            )
            for seen in events
        ]
        await execute_many(self._connection, upsert_statement(self._connection, _event, update=False), event_rows)

    async def list_events(self, ids: Sequence[LeaseId]) -> list[ChainEvent]:
        """List the stored events of some leases, in the order they happened."""
        return _read_events(await select_in(self._connection, _SELECT_EVENTS + "lease_id IN (IN)", (self._scope.id,), ids))

    async def list_events_up_to(self, last: int) -> list[ChainEvent]:
        """List the stored events up to and including block `last`, in the order they happened."""
        return _read_events((await self._execute(_SELECT_EVENTS + "block_number <= ?", last)).all())

    async def list_leases_above(self, number: int) -> list[LeaseId]:
        """List the leases that have an event above a block."""
        query = "SELECT DISTINCT lease_id FROM chain_event WHERE deployment = ? AND block_number > ?"
        return [row[0] for row in (await self._execute(query, number)).all()]

    async def find_created(self, ids: Sequence[LeaseId]) -> set[LeaseId]:
        """Return those of the leases whose creation is among the stored events."""
        query = "SELECT lease_id FROM chain_event WHERE deployment = ? AND kind = 'LeaseCreated' AND lease_id IN (IN)"
        return {row[0] for row in await select_in(self._connection, query, (self._scope.id,), ids)}

    async def delete_above(self, number: int) -> None:
        """Delete every block and event above a number: a reorganisation removed them."""
        await self._execute("DELETE FROM chain_event WHERE deployment = ? AND block_number > ?", number)
        await self._execute("DELETE FROM chain_block WHERE deployment = ? AND number > ?", number)

    async def delete_settled(self, base: BlockRef) -> None:
        """Delete the blocks and events up to `base`: the lease rows hold what they said."""
        await self._execute("DELETE FROM chain_event WHERE deployment = ? AND block_number <= ?", base.number)
        await self._execute("DELETE FROM chain_block WHERE deployment = ? AND number <= ?", base.number)

    async def delete_all(self) -> None:
        """Delete every block, event and backfill range: the chain is read again."""
        await self._execute("DELETE FROM chain_event WHERE deployment = ?")
        await self._execute("DELETE FROM chain_block WHERE deployment = ?")
        await self._execute("DELETE FROM settled_range WHERE deployment = ?")

    async def insert_backfill_range(self, first: int, last: int, digest: str, due_at: float = 0.0) -> None:
        """Note a settled range that is to be read again from `due_at` on (Unix seconds; 0: at once)."""
        await execute_many(
            self._connection, upsert_statement(self._connection, _range), [(self._scope.id, first, last, digest, due_at)]
        )

    async def find_backfill_range(self, now: float = 0.0) -> tuple[int, int, str, float] | None:
        """Return the range (first, last, digest, due at) that is to be read first among those due at `now`, or None."""
        query = "SELECT first, last, digest, due_at FROM settled_range WHERE deployment = ? AND due_at <= ? ORDER BY due_at, first LIMIT 1"
        row: DbRow | None = (await self._execute(query, now)).first()
        return None if row is None else (row[0], row[1], row[2], row[3])

    async def delete_backfill_range(self, first: int) -> None:
        """Delete a range on which a later reading agreed."""
        await self._execute("DELETE FROM settled_range WHERE deployment = ? AND first = ?", first)

    async def find_scanned_block(self) -> int:
        """Return the last block that the slow scan read; -1 before its first step."""
        row: DbRow = (await self._execute("SELECT scanned_number FROM deployment WHERE id = ?")).one()
        return int(row[0])

    async def save_scanned_block(self, number: int) -> None:
        """Write how far the slow scan has come."""
        sql = with_placeholders(self._connection, "UPDATE deployment SET scanned_number = ? WHERE id = ?")
        await self._connection.exec_driver_sql(sql, (number, self._scope.id))

    async def _execute(self, sql: str, *values: float) -> CursorResult[Any]:
        """Execute a statement of the driver's whose first parameter is the deployment."""
        return await self._connection.exec_driver_sql(with_placeholders(self._connection, sql), (self._scope.id, *values))
