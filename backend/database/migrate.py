"""Bring a database to the newest schema. Safe when several processes start at once: one migrates, the others wait."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Connection, make_url, text

from backend.database.session import Database, async_url, database_errors, lock_name, open_engine, sqlite_files
from backend.errors import DatabaseUnavailable, MigrationsMissing
from backend.permissions import close_files

PACKAGE = Path(__file__).resolve().parents[1]
LOCK_KEY = 0x41706572  # "Aper", the advisory lock's number on PostgreSQL


async def migrate(url: str) -> bool:
    """Run every migration that is missing; files of SQLite that others may read are closed to them.

    Args:
        url: as `Database`.

    Returns:
        Whether anything had to be done.

    Raises:
        DatabaseUnavailable: it does not answer, or the file is no database.
        MigrationsMissing
    """
    url = async_url(url)
    with database_errors():
        engine = open_engine(url)
        try:
            with _file_lock(url):
                async with engine.connect() as connection:
                    changed = await connection.run_sync(_upgrade)
        finally:
            await engine.dispose()
    close_files(sqlite_files(url))  # last: a file of another kind, named by mistake, keeps its rights
    return changed


async def check_migrated(database: Database) -> None:
    """Find out at start, not at the first request, whether the database can be used.

    Raises:
        DatabaseUnavailable: it does not answer, or its schema is not the newest.
        MigrationsMissing
    """
    async with database.transaction() as session:
        connection = await session.connection()
        current = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if current != head:
        raise DatabaseUnavailable(
            f"The database's schema is {current or 'empty'}, but this version needs {head}: run `aperta migrate`."
        )


def alembic_config(package: Path = PACKAGE) -> Config:
    """What Alembic needs to know, for this package or a copy of it elsewhere.

    Raises:
        MigrationsMissing
    """
    config = Config()
    config.set_main_option("script_location", str(_find_scripts(package)).replace("%", "%%"))
    return config


def _find_scripts(package: Path) -> Path:
    """Inside the package where it was installed; beside it in a checkout. The library `alembic` has no versions."""
    installed, checkout = package / "migrations", package.parent / "alembic"
    for folder in (installed, checkout):
        if (folder / "env.py").is_file() and any(folder.glob("versions/*.py")):
            return folder
    raise MigrationsMissing(
        f"This installation has no migrations: neither {installed} nor {checkout} holds them. "
        "Install aperta-server again."
    )


def _upgrade(connection: Connection) -> bool:
    config = alembic_config()
    _lock(connection)
    head = ScriptDirectory.from_config(config).get_current_head()
    if MigrationContext.configure(connection).get_current_revision() == head:
        return False
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()
    return True


def _file_lock(url: str) -> FileLock | nullcontext[None]:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return FileLock(lock_name(parsed.database), timeout=60)
    return nullcontext()


def _lock(connection: Connection) -> None:
    """On PostgreSQL one process migrates, in one transaction, which the lock ends with."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
