"""Queries about worker processes, and the database's clock. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database.models import Worker


def database_now(dialect: str) -> Any:
    """This instant by the clock of the database, for machines whose own clocks differ; SQLite has none but theirs."""
    return func.clock_timestamp() if dialect == "postgresql" else datetime.now(UTC)


async def read_clock(session: AsyncSession) -> datetime:
    """What time the database has."""
    now = database_now(session.get_bind().dialect.name)
    return now if isinstance(now, datetime) else (await session.execute(select(now))).scalar_one()


async def list_workers(session: AsyncSession) -> Sequence[Worker]:
    return (await session.execute(select(Worker).order_by(Worker.started_at))).scalars().all()


async def delete_worker(session: AsyncSession, worker_id: str, seen_at: datetime | None = None) -> bool:
    """Unregister a worker, unless it has given a sign of life since `seen_at`; returns whether it was there."""
    query = delete(Worker).where(Worker.id == worker_id)
    if seen_at is not None:
        query = query.where(Worker.heartbeat_at == seen_at)
    return cast("CursorResult[Any]", await session.execute(query)).rowcount == 1
