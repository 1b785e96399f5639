"""Engines and sessions. SQLite is set up so that a committed row survives a power cut; PostgreSQL already is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from backend.errors import DatabaseUnavailable

SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000", "secure_delete=ON")


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
        try:
            async with self._sessions.begin() as session:
                yield session
        except (OperationalError, InterfaceError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise DatabaseUnavailable(
                f"The database cannot be used: {cause}. Check that it runs and that DATABASE_URL is right."
            ) from error

    async def close(self) -> None:
        await self.engine.dispose()


def async_url(url: str) -> str:
    """The same database through its asynchronous driver."""
    parsed = make_url(url)
    drivers = {
        "sqlite": "sqlite+aiosqlite",
        "postgresql": "postgresql+asyncpg",
        "postgres": "postgresql+asyncpg",
    }
    parsed = parsed.set(drivername=drivers.get(parsed.drivername, parsed.drivername))
    return parsed.render_as_string(hide_password=False)


def open_engine(url: str) -> AsyncEngine:
    """An engine with the settings of its database; connects when first used."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_async_engine(url, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(url)
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
