"""What the node holds of the chain: how far it is settled, the blocks above by hash, and their events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any, Final

import structlog
from sqlalchemy import BigInteger, Column, Index, Integer, Text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain import lease as lease_events
from pandacea.domain.chain_view import BlockRef, ChainEvent, ChainView
from pandacea.domain.ids import Address, BlockNumber, Hash32, LeaseId, Timestamp
from pandacea.store.bulk import execute_many, select_in, upsert_statement, with_placeholders

log = structlog.get_logger(__name__)


class DeploymentRow(SQLModel, table=True):
    """One LeaseAgreement on one chain, followed for one Earner, and everything up to `base` settled."""

    __tablename__ = "deployment"
    __table_args__ = (Index("deployment_place", "chain_id", "contract", unique=True),)

    id: int | None = Field(default=None, sa_column=Column(Integer, primary_key=True, autoincrement=True))
    chain_id: int = Field(sa_column=Column(BigInteger, nullable=False))
    contract: str = Field(max_length=42)
    earner: str = Field(max_length=42)
    """Whose leases are kept; another Earner means reading the chain again."""
    interface: str = Field(max_length=8)
    deploy_block: int = Field(sa_column=Column(BigInteger, nullable=False))
    base_number: int = Field(sa_column=Column(BigInteger, nullable=False))
    base_hash: str = Field(max_length=66)
    base_parent: str = Field(max_length=66)
    base_timestamp: int = Field(sa_column=Column(BigInteger, nullable=False))
    safe_number: int = Field(sa_column=Column(BigInteger, nullable=False))
    finalized_number: int = Field(sa_column=Column(BigInteger, nullable=False))


class ChainBlockRow(SQLModel, table=True):
    """A block above the settled part, by hash."""

    __tablename__ = "chain_block"

    deployment: int = Field(primary_key=True)
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hash: str = Field(max_length=66)
    parent: str = Field(max_length=66)
    timestamp: int = Field(sa_column=Column(BigInteger, nullable=False))


class ChainEventRow(SQLModel, table=True):
    """An event above the settled part. The key is the log's identity, so seeing it twice changes nothing."""

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
    """A range that was settled from one answer, and waits to be read a second time. Gone once two answers agree."""

    __tablename__ = "settled_range"

    deployment: int = Field(primary_key=True)
    first: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    last: int = Field(sa_column=Column(BigInteger, nullable=False))
    digest: str = Field(max_length=64)
    """sha-256 over the identities of the events it gave, in order."""


_range: Any = SQLModel.metadata.tables["settled_range"]
_deployment: Any = SQLModel.metadata.tables["deployment"]
_block: Any = SQLModel.metadata.tables["chain_block"]
_event: Any = SQLModel.metadata.tables["chain_event"]

_EVENT_TYPES: Final[dict[str, Any]] = {
    name: getattr(lease_events, name)
    for name in (
        "LeaseCreated",
        "LeaseTerms",
        "LeaseApproved",
        "ResultCommitted",
        "LeaseExecuted",
        "LeaseCancelled",
        "LeaseFinalized",
        "DisputeRaised",
        "DisputeResolved",
    )
}

_EVENT_COLUMNS: Final = "block_number, block_hash, log_index, tx_hash, kind, arguments, part"


def _read_events(rows: Iterable[Any]) -> list[ChainEvent]:
    """Rows as events, in the order they happened. One whose ids are none is left out: nothing can be folded of it."""
    found = []
    for number, block_hash, index, transaction, kind, arguments, part in rows:
        event = _EVENT_TYPES[kind](*json.loads(arguments))
        if lease_events.is_well_formed(event):
            found.append(ChainEvent(BlockNumber(number), Hash32(block_hash), index, Hash32(transaction), event, part))
        else:
            log.error("chain.event-unreadable", kind=kind, block=number, log_index=index)
    return sorted(found, key=lambda seen: seen.position)


async def find_deployment(connection: AsyncConnection, chain_id: int, contract: Address) -> Any | None:
    """The row of a contract on a chain, or None before it was first followed."""
    query = _deployment.select().where((_deployment.c.chain_id == chain_id) & (_deployment.c.contract == contract))
    return (await connection.execute(query)).first()


async def chains_of(connection: AsyncConnection, contract: Address) -> list[int]:
    """The chains on which a contract of this address was followed."""
    query = _deployment.select().where(_deployment.c.contract == contract).order_by(_deployment.c.chain_id)
    return [row.chain_id for row in (await connection.execute(query)).all()]


async def insert_deployment(
    connection: AsyncConnection,
    *,
    chain_id: int,
    contract: Address,
    earner: Address,
    interface: str,
    deploy_block: int,
    base: BlockRef,
) -> int:
    """Begin to follow a contract; returns the deployment's id."""
    values = {
        "chain_id": chain_id,
        "contract": contract,
        "earner": earner,
        "interface": interface,
        "deploy_block": deploy_block,
        "base_number": base.number,
        "base_hash": base.hash,
        "base_parent": base.parent,
        "base_timestamp": base.timestamp,
        "safe_number": -1,
        "finalized_number": -1,
    }
    result = await connection.execute(_deployment.insert().values(values))
    key: Any = result.inserted_primary_key
    return int(key[0])


async def load_view(connection: AsyncConnection, row: Any) -> ChainView:
    """The view as it was last made durable."""
    base = BlockRef(BlockNumber(row.base_number), Hash32(row.base_hash), Hash32(row.base_parent), Timestamp(row.base_timestamp))
    query = with_placeholders(
        connection,
        "SELECT number, hash, parent, timestamp FROM chain_block WHERE deployment = ? AND number > ? ORDER BY number",
    )
    rows: Any = (await connection.exec_driver_sql(query, (row.id, base.number))).all()
    blocks = tuple(BlockRef(number, block_hash, parent, time) for number, block_hash, parent, time in rows)
    return ChainView(base, blocks, BlockNumber(row.safe_number), BlockNumber(row.finalized_number))


async def insert_blocks(connection: AsyncConnection, deployment: int, blocks: Sequence[BlockRef]) -> None:
    """Hold blocks by hash."""
    rows = [(deployment, block.number, block.hash, block.parent, block.timestamp) for block in blocks]
    await execute_many(connection, upsert_statement(connection, _block), rows)


async def insert_events(connection: AsyncConnection, deployment: int, events: Sequence[ChainEvent]) -> None:
    """Hold events by their log's identity; one held already is kept as it is."""
    rows = [
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
    await execute_many(connection, upsert_statement(connection, _event, update=False), rows)


async def events_of(connection: AsyncConnection, deployment: int, leases: Sequence[LeaseId]) -> list[ChainEvent]:
    """The events held of some leases, in the order they happened."""
    query = f"SELECT {_EVENT_COLUMNS} FROM chain_event WHERE deployment = ? AND lease_id IN (IN)"  # noqa: S608
    return _read_events(await select_in(connection, query, (deployment,), leases))


async def events_to(connection: AsyncConnection, deployment: int, last: int) -> list[ChainEvent]:
    """The events held up to and including block `last`, in the order they happened."""
    query = f"SELECT {_EVENT_COLUMNS} FROM chain_event WHERE deployment = ? AND block_number <= ?"  # noqa: S608
    return _read_events((await connection.exec_driver_sql(with_placeholders(connection, query), (deployment, last))).all())


async def leases_above(connection: AsyncConnection, deployment: int, number: int) -> list[LeaseId]:
    """The leases that have an event above a block."""
    query = "SELECT DISTINCT lease_id FROM chain_event WHERE deployment = ? AND block_number > ?"
    return [row[0] for row in (await connection.exec_driver_sql(with_placeholders(connection, query), (deployment, number))).all()]


async def created_of(connection: AsyncConnection, deployment: int, leases: Sequence[LeaseId]) -> set[LeaseId]:
    """Those of the leases whose creation is among the events held."""
    query = "SELECT lease_id FROM chain_event WHERE deployment = ? AND kind = 'LeaseCreated' AND lease_id IN (IN)"
    return {row[0] for row in await select_in(connection, query, (deployment,), leases)}


async def undo(connection: AsyncConnection, deployment: int, number: int) -> None:
    """Forget every block and event above a number."""
    for sql in (
        "DELETE FROM chain_event WHERE deployment = ? AND block_number > ?",
        "DELETE FROM chain_block WHERE deployment = ? AND number > ?",
    ):
        await connection.exec_driver_sql(with_placeholders(connection, sql), (deployment, number))


async def settle(connection: AsyncConnection, deployment: int, base: BlockRef) -> None:
    """Everything up to `base` is in the lease rows: hold its blocks and events no longer."""
    for sql in (
        "DELETE FROM chain_event WHERE deployment = ? AND block_number <= ?",
        "DELETE FROM chain_block WHERE deployment = ? AND number <= ?",
    ):
        await connection.exec_driver_sql(with_placeholders(connection, sql), (deployment, base.number))


async def save_cursor(connection: AsyncConnection, deployment: int, view: ChainView) -> None:
    """Write how far the view is settled, safe and finalized."""
    sql = (
        "UPDATE deployment SET base_number = ?, base_hash = ?, base_parent = ?, base_timestamp = ?, "
        "safe_number = ?, finalized_number = ? WHERE id = ?"
    )
    base = view.base
    values = (base.number, base.hash, base.parent, base.timestamp, view.safe, view.finalized, deployment)
    await connection.exec_driver_sql(with_placeholders(connection, sql), values)


async def insert_range(connection: AsyncConnection, deployment: int, first: int, last: int, digest: str) -> None:
    """A range was settled from one answer."""
    await execute_many(connection, upsert_statement(connection, _range), [(deployment, first, last, digest)])


async def oldest_range(connection: AsyncConnection, deployment: int) -> tuple[int, int, str] | None:
    """A range (first, last, digest) that waits for a second reading, or None."""
    sql = "SELECT first, last, digest FROM settled_range WHERE deployment = ? ORDER BY first LIMIT 1"
    row: Any = (await connection.exec_driver_sql(with_placeholders(connection, sql), (deployment,))).first()
    return None if row is None else (row[0], row[1], row[2])


async def delete_range(connection: AsyncConnection, deployment: int, first: int) -> None:
    """Two readings agree."""
    sql = with_placeholders(connection, "DELETE FROM settled_range WHERE deployment = ? AND first = ?")
    await connection.exec_driver_sql(sql, (deployment, first))


async def forget(connection: AsyncConnection, deployment: int, *, earner: Address, interface: str, base: BlockRef) -> None:
    """Forget all that was read of a contract and begin again; proofs and acknowledgements stay: they are not the chain's word."""
    for table in ("chain_event", "chain_block", "settled_range", "lease"):
        sql = with_placeholders(connection, f"DELETE FROM {table} WHERE deployment = ?")  # noqa: S608 - our own tables
        await connection.exec_driver_sql(sql, (deployment,))
    sql = with_placeholders(connection, "UPDATE deployment SET earner = ?, interface = ? WHERE id = ?")
    await connection.exec_driver_sql(sql, (earner, interface, deployment))
    await save_cursor(connection, deployment, ChainView(base))
