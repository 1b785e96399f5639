"""How the durable engine reaches its database, and how that is brought to the newest schema."""

from __future__ import annotations

from sqlalchemy import NullPool, Pool, create_engine, event, make_url

from backend.database.session import database_errors, durable_url, set_up_psycopg

CONNECT_TIMEOUT_S = 10


def prepare(database_url: str) -> None:
    """Make or change the engine's tables in PostgreSQL: servers and workers then need no right to do so.

    Nothing to do for SQLite, whose file the first process makes.

    Raises:
        DatabaseUnavailable
    """
    from dbos import DBOS

    url = durable_url(database_url)
    if not url.startswith("sqlite"):
        event.listen(Pool, "connect", set_up_psycopg)
        try:
            with database_errors():
                DBOS.migrate(url)
        finally:
            event.remove(Pool, "connect", set_up_psycopg)


def use_wal(url: str) -> None:
    """Half as many waits for the disk for each checkpoint, and none for readers; the file remembers it."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    engine.dispose()


def connect(url: str) -> object:
    """A connection for DBOS, which waits for a PostgreSQL that is away only if the error says so in these words.

    Raises:
        psycopg.OperationalError
    """
    import psycopg

    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = psycopg.connect(address, connect_timeout=CONNECT_TIMEOUT_S)
    except psycopg.OperationalError as error:
        raise psycopg.OperationalError(f"connection failed: {error}") from error
    set_up_psycopg(connection)
    return connection
