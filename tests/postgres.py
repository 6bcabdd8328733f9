"""A real PostgreSQL server for the tests: created in a temporary folder, on loopback, and removed afterwards in every case."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlmodel import SQLModel

from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from tests.prerequisites import free_port, skip_or_fail
from tests.run_id import public_folder

PASSWORD: Final = "a pass:word/with@marks"
"""Password of the node's role: it has to be escaped in URLs, and must not be shown anywhere."""
SETTINGS: Final = {
    # A test does not survive a power failure anyway.
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path would have to be short
}

EMPTY_TABLES: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$ DECLARE one text; used bool; BEGIN
    FOREACH one IN ARRAY ARRAY[TABLES] LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', one) INTO used;
        IF used THEN EXECUTE format('TRUNCATE %I RESTART IDENTITY CASCADE', one); END IF;
    END LOOP;
END $$
"""


class PostgresServer:
    """One server: a superuser `postgres`, and the role `pandacea` that owns every test's database."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        """`folder`: an empty folder; `binaries`: the folder of initdb and postgres."""
        self.folder = folder
        self.port = free_port()
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._template = False
        self._emptied: list[str] = []

    def init_cluster(self) -> None:
        """Initialise the cluster; as the user postgres when the tests run as root, which PostgreSQL refuses."""
        if os.getuid() == 0:
            os.chown(self.folder, pwd.getpwnam("postgres").pw_uid, -1)
        words = self.folder / "password"
        words.write_text(PASSWORD)
        words.chmod(0o644)
        options = [
            "-D",
            self.folder / "data",
            "-U",
            "postgres",
            f"--pwfile={words}",
            "--auth=scram-sha-256",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run(self._command("initdb", *options), check=True, capture_output=True, cwd=self.folder)

    def start(self) -> None:
        """Start the server and wait until it answers. Call it on the main thread: it is stopped when the thread that started it ends."""
        settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = self._command("postgres", "-D", self.folder / "data", "-p", str(self.port), *settings)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        ask = self._command("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
        deadline = time.monotonic() + 30
        while subprocess.run(ask, check=False, cwd=self.folder).returncode != 0:
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.02)

    def create_role(self) -> None:
        """Create the node's role, which may log in and own databases, and nothing else."""
        statement = f"CREATE ROLE pandacea LOGIN PASSWORD '{PASSWORD}'"
        ask = self._command("psql", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-c", statement)
        subprocess.run(ask, check=True, capture_output=True, cwd=self.folder, env={**os.environ, "PGPASSWORD": PASSWORD})

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server with a fast shutdown, which ends its sessions; SIGQUIT: immediately."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(30)

    def _command(self, program: str, *arguments: Any) -> list[str]:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=INT"] if os.getuid() == 0 else []
        return [*user, str(self._binaries / program), *map(str, arguments)]

    def url(self, name: str, *, password: bool = True) -> str:
        """Return the store.url of a database."""
        from urllib.parse import quote

        secret = f":{quote(PASSWORD, safe='')}" if password else ""
        return f"postgresql+asyncpg://pandacea{secret}@127.0.0.1:{self.port}/{name}"

    async def create_empty_database(self) -> str:
        """Create a database without tables; returns its name."""
        self._count += 1
        name = f"test_{self._count}"
        await self.execute(f"CREATE DATABASE {name} OWNER pandacea")
        return name

    async def create_migrated_database(self) -> str:
        """Create a database at the newest schema without a row; returns its name."""
        if not self._template:
            await self.execute("CREATE DATABASE migrated OWNER pandacea")
            database = await DatabaseEngine.open(self.url("migrated"))
            await upgrade(database)
            await database.close()
            self._template = True
        if self._emptied:
            return self._emptied.pop()
        self._count += 1
        name = f"test_{self._count}"
        await self.execute(f"CREATE DATABASE {name} OWNER pandacea TEMPLATE migrated")
        return name

    async def recycle_database(self, name: str) -> None:
        """Empty a database of `create_migrated_database` for the next test: cheaper than dropping it and copying another."""
        tables = ", ".join(f"'{table}'" for table in SQLModel.metadata.tables)
        await self.execute(EMPTY_TABLES.replace("TABLES", tables), name)
        self._emptied.append(name)

    async def drop_database(self, name: str) -> None:
        """Drop a database and end every session that still uses it."""
        await self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def execute(self, statement: str, database: str = "postgres") -> None:
        """Execute a statement as the superuser, outside any transaction."""
        import asyncpg

        connection = await asyncpg.connect(user="postgres", password=PASSWORD, host="127.0.0.1", port=self.port, database=database)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Run a server until the block ends."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = shutil.which("initdb") or (str(found[-1]) if found else None)
    if path is None:
        skip_or_fail("PostgreSQL is not installed; run: apt-get install postgresql")
    folder = public_folder("postgres")
    built = PostgresServer(folder, Path(path).resolve().parent)
    try:
        built.init_cluster()
        built.start()
        built.create_role()
        yield built
    finally:
        with suppress(subprocess.TimeoutExpired):
            built.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)
