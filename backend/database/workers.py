"""Queries about worker processes, and the database's clock. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Connection, CursorResult, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database.models import Worker


def database_now(dialect: str) -> Any:
    """Return the current time by the database's clock, since the clocks of machines differ; SQLite has no clock."""
    return func.clock_timestamp() if dialect == "postgresql" else datetime.now(UTC)


async def read_clock(session: AsyncSession) -> datetime:
    """The database's time."""
    now = database_now(session.get_bind().dialect.name)
    return now if isinstance(now, datetime) else (await session.execute(select(now))).scalar_one()


def record_heartbeat(connection: Connection, worker_id: str, values: Mapping[str, object]) -> None:
    """Write that a worker lives, now by the database's clock. One that is not registered is registered with `values`.

    Args:
        connection: a synchronous one, of the thread that no busy event loop holds up.
        values: the other columns of its row.
    """
    now = database_now(connection.dialect.name)
    beat = update(Worker).where(Worker.id == worker_id).values(heartbeat_at=now)
    if not connection.execute(beat).rowcount:
        connection.execute(insert(Worker).values(id=worker_id, heartbeat_at=now, **values))


def unregister(connection: Connection, worker_id: str) -> None:
    """Delete the row of a worker that stops."""
    connection.execute(delete(Worker).where(Worker.id == worker_id))


async def list_workers(session: AsyncSession) -> Sequence[Worker]:
    return (await session.execute(select(Worker).order_by(Worker.started_at))).scalars().all()


async def delete_worker(session: AsyncSession, worker_id: str, seen_at: datetime | None = None) -> bool:
    """Unregister a worker, unless its heartbeat is newer than `seen_at`; returns whether it was registered."""
    query = delete(Worker).where(Worker.id == worker_id)
    if seen_at is not None:
        query = query.where(Worker.heartbeat_at == seen_at)
    return cast("CursorResult[Any]", await session.execute(query)).rowcount == 1
