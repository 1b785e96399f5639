"""Engines and sessions. SQLite is set up so that a committed row survives a power cut; PostgreSQL already is."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from backend.errors import DatabaseUnavailable

SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000", "secure_delete=ON")

DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
"""Accepted schemes of DATABASE_URL, and the driver for each."""

IDENTITY = {
    "sqlite": "SELECT file FROM pragma_database_list WHERE name = 'main'",
    "postgresql": "SELECT system_identifier, current_database() FROM pg_control_system()",
}
"""Queries for a database's identity; a SQLite file has no number, so its path is used."""

IDLE_LIMIT_MS = 15_000
"""A process that freezes inside a transaction holds its locks no longer than this."""
LIMIT_IDLE = f"SELECT pg_backend_pid(), set_config('idle_in_transaction_session_timeout', '{IDLE_LIMIT_MS}', false)"
"""The first statement on a connection to PostgreSQL. PgBouncer refuses the limit as a parameter of the connection. The
process id is that of the connection's greeting only if no pooler is between: poolers invent theirs."""
UNPREPARED: Mapping[str, Any] = MappingProxyType(
    {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
)
"""For asyncpg: statements without a name, which end with their transaction. A pooler that pools by transaction gives
the next transaction another connection, on which a named statement is unknown. Without a pooler statements have names:
that saves 4 to 18 % of the CPU time of a commit, the server's included."""
NAMED_FROM = 5
"""psycopg gives a statement a name when it has run so often (its default)."""

UNAVAILABLE_SQLSTATES = ("08", "25", "28", "3D", "40", "53", "57", "58")
"""Classes of PostgreSQL's error codes: connection, state, log-in, catalog, rollback, resources, operator, system."""


class Database:
    """A connection pool and its sessions.

    Args:
        url: `sqlite+aiosqlite:///./aperta.db` or `postgresql+asyncpg://user:password@host/name`. Plain `sqlite://` and
            `postgres(ql)://` addresses are understood too.
    """

    def __init__(self, url: str) -> None:
        self.url = async_url(url)
        self.engine = open_engine(self.url)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._mark: str | None = None

    @property
    def kind(self) -> str:
        """sqlite or postgresql."""
        return self.engine.dialect.name

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One short transaction: committed at the end, rolled back on an error.

        Raises:
            DatabaseUnavailable: no connection, or it broke.
        """
        with database_errors():
            async with self._sessions.begin() as session:
                yield session

    async def mark(self) -> str:
        """Eight hexadecimal digits that identify this database, so that several can share a folder of recordings.

        Raises:
            DatabaseUnavailable
        """
        if self._mark is None:
            self._mark = hashlib.sha256(repr(await self._identity()).encode()).hexdigest()[:8]
        return self._mark

    async def _identity(self) -> list[object]:
        url = self.engine.url
        try:
            async with self.transaction() as session:
                known = (await session.execute(text(IDENTITY[self.kind]))).one()
        except ProgrammingError:  # a PostgreSQL fork, or a user without the permission
            return [url.host, url.port, url.database]
        return [*known, *_file_identity(known[0])] if self.kind == "sqlite" else [*known]

    async def close(self) -> None:
        await self.engine.dispose()


def _file_identity(path: str) -> tuple[object, ...]:
    found = Path(path).stat()
    return socket.gethostname(), found.st_dev, found.st_ino


@contextmanager
def database_errors() -> Iterator[None]:
    """Translate errors of an unusable database; errors about a statement or a value pass unchanged.

    Raises:
        DatabaseUnavailable
    """
    try:
        yield
    except (DBAPIError, PoolTimeout, OSError) as error:
        if not _is_unavailable(error):
            raise
        cause = getattr(error, "orig", None) or error
        raise DatabaseUnavailable(
            f"The database cannot be used: {cause}. Check that it runs and that DATABASE_URL is right."
        ) from error


def _is_unavailable(error: Exception) -> bool:
    if isinstance(error, IntegrityError | DataError | ProgrammingError | NotSupportedError):
        return False
    if type(error) is DBAPIError:  # from asyncpg, whose errors SQLAlchemy barely classifies
        return str(getattr(error.orig, "sqlstate", "")).startswith(UNAVAILABLE_SQLSTATES)
    return True


def validated_url(url: str) -> str:
    """Return the URL unchanged.

    Raises:
        ValueError: not a database that Aperta supports. The message leaves out the URL, which may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ValueError(
            "this is no database URL; write sqlite+aiosqlite:///./aperta.db or "
            "postgresql+asyncpg://user:password@host/name"
        ) from error
    if parsed.drivername not in DRIVERS:
        raise ValueError(f"{parsed.drivername} is not supported; use sqlite+aiosqlite or postgresql+asyncpg")
    in_memory = not parsed.database or ":memory:" in parsed.database or parsed.query.get("mode") == "memory"
    if DRIVERS[parsed.drivername].startswith("sqlite") and in_memory:
        raise ValueError("rows in memory are lost; name a file, as in sqlite+aiosqlite:///./aperta.db")
    return url


def async_url(url: str) -> str:
    """The same database through its asynchronous driver."""
    parsed = make_url(url)
    parsed = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
    return _renamed(parsed, "sslmode", "ssl").render_as_string(hide_password=False)


def _renamed(url: URL, name: str, other: str) -> URL:
    """libpq and asyncpg know the same words for how a connection is encrypted, under different names."""
    if url.get_backend_name() != "postgresql" or name not in url.query:
        return url
    return url.difference_update_query([name]).update_query_dict({other: url.query[name]})


def sync_url(url: str) -> str:
    """The same database through its synchronous driver, for threads without an event loop."""
    parsed = make_url(async_url(url))
    if parsed.get_backend_name() == "sqlite":
        return parsed.set(drivername="sqlite").render_as_string(hide_password=False)
    parsed = _renamed(parsed.set(drivername="postgresql+psycopg"), "ssl", "sslmode")
    return parsed.render_as_string(hide_password=False)


def open_sync_engine(url: str, **options: Any) -> Engine:
    """An engine for threads without an event loop.

    Args:
        url: as `sync_url` returns it.
        options: of `sqlalchemy.create_engine`.
    """
    engine = create_engine(url, **options)
    if engine.dialect.name == "postgresql":
        event.listen(engine, "connect", set_up_psycopg)
    return engine


def set_up_psycopg(connection: Any, _record: object = None) -> None:
    """As `UNPREPARED` and `LIMIT_IDLE` say, for a new connection of psycopg."""
    connection.prepare_threshold = None
    automatic, connection.autocommit = connection.autocommit, True
    pid, _ = connection.execute(LIMIT_IDLE).fetchone()
    connection.autocommit = automatic
    if pid == connection.info.backend_pid:
        connection.prepare_threshold = NAMED_FROM


def durable_url(url: str) -> str:
    """Where the durable engine keeps its state: the same PostgreSQL database, or a second file beside a SQLite one.

    A second file, because the engine looks for work many times a second, and SQLite has one writer per file.
    """
    parsed = make_url(sync_url(url))
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return parsed.render_as_string(hide_password=False)
    file, question_mark, options = parsed.database.partition("?")
    stem = file.removesuffix(".db")
    return parsed.set(database=f"{stem}.jobs.db{question_mark}{options}").render_as_string(hide_password=False)


def sqlite_files(url: str) -> list[Path]:
    """Every file that SQLite and Aperta may have beside a database, the engine's state included; [] for PostgreSQL."""
    parsed = make_url(sync_url(url))
    if parsed.get_backend_name() != "sqlite":
        return []
    databases = [make_url(address).database or "" for address in (sync_url(url), durable_url(url))]
    names = [database.removeprefix("file:").partition("?")[0] for database in databases]
    files = [Path(name + end) for name in names for end in ("", "-wal", "-shm", "-journal")]
    return [*files, Path(lock_name(databases[0]))]


def lock_name(database: str) -> str:
    """The file that a migration of a SQLite database holds a lock on."""
    return f"{database}.migrate.lock"


def open_engine(url: str) -> AsyncEngine:
    """An engine with the settings of its database; connects when first used.

    Raises:
        OSError: the file of a SQLite database cannot be made or written.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = create_async_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args={**UNPREPARED})
        _Route().watch(engine)
        return engine
    if parsed.database and not parsed.database.startswith("file:"):
        _make_file(Path(parsed.database))
    engine = create_async_engine(url, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    return engine


def _make_file(path: Path) -> None:
    """Open the file once, because SQLite's own error does not say why it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.open("ab").close()


class _Route:
    """Whether connections lead straight to PostgreSQL. The first one finds out, and is replaced by one with names."""

    def __init__(self) -> None:
        self._is_direct = False

    def watch(self, engine: AsyncEngine) -> None:
        """See to all connections of an engine."""
        event.listen(engine.sync_engine, "do_connect", self._choose)
        event.listen(engine.sync_engine, "connect", self._greet)
        event.listen(engine.sync_engine, "checkout", self._replace)

    def _choose(self, _dialect: object, record: Any, _arguments: object, parameters: dict[str, Any]) -> None:
        if self._is_direct:
            for name in UNPREPARED:
                parameters.pop(name, None)
        record.info["named"] = self._is_direct

    def _greet(self, connection: Any, _record: object) -> None:
        connection.run_async(self._look)

    async def _look(self, driver: Any) -> None:
        async with driver.transaction():  # so that a pooler keeps to one connection
            pid = await driver.fetchval(LIMIT_IDLE)
        self._is_direct = pid == driver.get_server_pid()

    def _replace(self, _connection: object, record: Any, _proxy: object) -> None:
        """Raises DisconnectionError, upon which the pool connects again."""
        if record.info.get("named", self._is_direct) != self._is_direct:
            raise DisconnectionError


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        for pragma in SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
    except BaseException:
        connection.close()  # the pool does not know it yet
        raise
