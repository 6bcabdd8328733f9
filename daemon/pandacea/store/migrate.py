"""Migrate a database to the newest schema with Alembic, forward only."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from pandacea.errors import Broken
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.nonces import create_nonce_table

VERSIONS = Path(__file__).parent / "migrations"


async def upgrade(database: DatabaseEngine) -> None:
    """Run every migration that the database has not had.

    Raises:
        Broken: the database was written by a newer node, or a migration failed; nothing was changed.
    """
    async with database.write_schema() as tx:
        await tx.connection.run_sync(_upgrade)
        await tx.commit()
    await create_nonce_table(database)


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(VERSIONS))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    have = MigrationContext.configure(connection).get_current_revision()
    known = {revision.revision for revision in script.walk_revisions()}
    if have is not None and have not in known:
        raise Broken(f"The database is at schema {have!r}, unknown here: a newer node wrote it. Upgrade pandacea.")
    command.upgrade(config, "head")
    if connection.dialect.name == "sqlite" and (loose := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
        raise Broken(f"The database has rows whose parent row is missing, so it was not upgraded: {loose[:5]}. Restore a backup.")
