"""Migrations: forward only, from the first schema to what the code expects."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import JSON, Connection, LargeBinary, MetaData, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

import pandacea.store.tables
from pandacea.errors import Broken
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import VERSIONS, upgrade
from tests.messages import check_message


def differences(connection: Connection) -> list[Any]:
    """What Alembic would still change."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    assert pandacea.store.tables
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": False}), SQLModel.metadata))


async def test_the_migrations_lead_to_the_tables_of_the_code(database: DatabaseEngine) -> None:
    """Nobody changes a table without a migration."""
    async with database.read_connection() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize(
    "revision", ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012"]
)
async def test_a_database_of_an_older_schema_is_upgraded_and_keeps_its_rows(empty_url: str, revision: str) -> None:
    """Forward from every schema there was, with a row in each of its tables."""
    database = await DatabaseEngine.open(empty_url)
    async with database.write_transaction() as tx:
        await tx.connection.run_sync(lambda connection: _to(connection, revision))
        await tx.commit()
    async with database.write_transaction() as tx:
        before = await tx.connection.run_sync(_filled)
        await tx.commit()
    await upgrade(database)
    async with database.write_transaction() as tx:
        with pytest.raises(IntegrityError):
            await tx.connection.execute(text("DELETE FROM job"))  # foreign keys hold again
    async with database.read_connection() as connection:
        after = {name: (await connection.execute(text(f"SELECT * FROM {name}"))).mappings().one() for name in before}
        assert await connection.run_sync(differences) == []
    assert len(before) >= 6
    for name, row in before.items():
        assert {column: after[name][column] for column in row} == row, name
    await database.close()


async def test_the_revisions_tested_are_all_there_are(database: DatabaseEngine) -> None:
    """A new migration wants its old schema tested."""
    async with database.read_connection() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "0017"


async def test_results_released_while_nothing_was_committed_wait_for_it(empty_url: str) -> None:
    """Charged and handed over, and no message about it: one is made. A held, refused or free one has none."""
    database = await DatabaseEngine.open(empty_url)
    async with database.write_transaction() as tx:
        await tx.connection.run_sync(lambda connection: _to(connection, "0008"))
        await tx.connection.run_sync(_insert_jobs)
        await tx.commit()
    await upgrade(database)
    async with database.read_connection() as connection:
        rows = (await connection.execute(text("SELECT key, channel, done_at FROM outbox"))).all()
    assert [tuple(row) for row in rows] == [("commit:paid", "chain", None)]
    await database.close()


def _insert_jobs(connection: Connection) -> None:
    metadata = MetaData()
    metadata.reflect(connection, only=["job"])
    job = metadata.tables["job"]
    base = {column.name: _value(column.type) for column in job.columns}
    changes: dict[str, dict[str, Any]] = {
        "paid": {},
        "held": {"state": "held"},
        "free": {"charge": "allowance"},
        "refused": {"state": "failed", "failure": "result-refused"},
        "lost": {"state": "failed", "failure": "lease-lost"},
        "unsigned": {"result_hash": None},
    }
    for name, change in changes.items():
        row = {**base, "computation_id": name, "state": "completed", "charge": "charged", "failure": None, **change}
        connection.execute(job.insert().values(row))


async def test_messages_that_wait_for_the_broker_get_their_new_topic(empty_url: str) -> None:
    """What an earlier version wrote is told in the new form; what was delivered, and the chain's messages, stay as they are."""
    database = await DatabaseEngine.open(empty_url)
    async with database.write_transaction() as tx:
        await tx.connection.run_sync(lambda connection: _to(connection, "0012"))
        await tx.connection.run_sync(_insert_messages)
        await tx.commit()
    await upgrade(database)
    async with database.read_connection() as connection:
        rows = await connection.run_sync(_read_messages)
    computation, lease = "0x" + "c" * 64, "0x" + "1" * 64
    assert [topic for topic, _ in rows] == [
        f"computations/{computation}/completed",
        f"leases/{lease}/DisputeRaised",
        "computations/failed",
        "commitResult",
    ]
    assert [(payload["type"], payload["timestamp"], payload["data"]["lease_id"]) for _, payload in rows[:2]] == [
        ("computations.completed", "1970-01-01T00:00:05.000Z", lease),
        ("leases.DisputeRaised", "1970-01-01T00:00:05.000Z", lease),
    ]
    for _, payload in rows[:2]:
        check_message(payload)
    assert rows[2][1] == rows[3][1] == {"as": "it was"}
    await database.close()


def _insert_messages(connection: Connection) -> None:
    metadata = MetaData()
    metadata.reflect(connection, only=["outbox"])
    lease = "0x" + "1" * 64
    event = {
        "event": "DisputeRaised",
        "block": 7,
        "block_hash": "0x" + "b" * 64,
        "log_index": 0,
        "transaction": "0x" + "a" * 64,
        "arguments": {"lease_id": lease, "reason": "words of a stranger"},
    }
    state = {"computation_id": "0x" + "c" * 64, "lease_id": lease, "state": "completed", "failure": None}
    told = {"as": "it was"}
    for channel, topic, payload, done_at in (
        ("mqtt", "computations/completed", state, None),
        ("mqtt", "leases/DisputeRaised", event, None),
        ("mqtt", "computations/failed", told, 6.0),
        ("chain", "commitResult", told, None),
    ):
        row = {"channel": channel, "key": f"{channel}:{topic}", "topic": topic, "payload": payload, "done_at": done_at}
        connection.execute(metadata.tables["outbox"].insert().values({**row, "created_at": 5.0, "next_at": 5.0, "attempts": 0}))


def _read_messages(connection: Connection) -> list[tuple[str, dict[str, Any]]]:
    metadata = MetaData()
    metadata.reflect(connection, only=["outbox"])
    table = metadata.tables["outbox"]
    return [(row.topic, row.payload) for row in connection.execute(table.select().order_by(table.c.id))]


async def test_upgrading_twice_changes_nothing(database: DatabaseEngine) -> None:
    """Every start runs it."""
    await upgrade(database)
    async with database.read_connection() as connection:
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert "job" in tables


async def test_a_database_of_a_newer_node_is_left_alone(empty_url: str) -> None:
    """An old program must not guess at a new schema."""
    database = await DatabaseEngine.open(empty_url)
    await upgrade(database)
    async with database.write_transaction() as tx:
        await tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await tx.commit()
    with pytest.raises(Broken, match="a newer node wrote it"):
        await upgrade(database)
    await database.close()


def _filled(connection: Connection) -> dict[str, dict[str, Any]]:
    """Put a row into every table, and read it back as the database has it."""
    metadata = MetaData()
    metadata.reflect(connection)
    rows = {}
    for table in metadata.sorted_tables:
        if table.name == "alembic_version":
            continue
        values = {column.name: _value(column.type) for column in table.columns}
        connection.execute(table.insert().values(values))
        rows[table.name] = dict(connection.execute(text(f"SELECT * FROM {table.name}")).mappings().one())
    return rows


def _value(kind: Any) -> Any:
    if isinstance(kind, JSON):
        return {"a": ["\u0000", 2**60]}
    if isinstance(kind, LargeBinary):
        return b"\x00\xff"
    return {bool: True, int: 7, float: 1.5}.get(kind.python_type, "x")


def _to(connection: Connection, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(VERSIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
