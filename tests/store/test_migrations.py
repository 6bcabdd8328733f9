"""Migrations: forward only, from the first schema to what the code expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from sqlmodel import SQLModel

import pandacea.store.tables
from pandacea.errors import Broken
from pandacea.store.migrate import VERSIONS, upgrade
from pandacea.store.session import Database


def differences(connection: Connection) -> list[Any]:
    """What Alembic would still change."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    assert pandacea.store.tables
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": False}), SQLModel.metadata))


async def test_the_migrations_lead_to_the_tables_of_the_code(database: Database) -> None:
    """Nobody changes a table without a migration."""
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_database_of_the_first_schema_is_upgraded_and_keeps_its_rows(tmp_path: Path) -> None:
    """Forward from 0001 with rows in it."""
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    async with database.write() as tx:
        await tx.connection.run_sync(lambda connection: _to(connection, "0001"))
        await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', 'n', 5)"))
        await tx.commit()
    await upgrade(database)
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT nonce FROM request_nonce"))).scalar_one() == "n"
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_upgrading_twice_changes_nothing(database: Database) -> None:
    """Every start runs it."""
    await upgrade(database)
    async with database.read() as connection:
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert "job" in tables


async def test_a_database_of_a_newer_node_is_left_alone(database: Database) -> None:
    """An old program must not guess at a new schema."""
    async with database.write() as tx:
        await tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await tx.commit()
    with pytest.raises(Broken, match="a newer node wrote it"):
        await upgrade(database)


def _to(connection: Connection, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(VERSIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
