"""Queries about the runs of periodic work. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database.models import ScheduleRun


async def find_last(session: AsyncSession, kind: str, *, host: str | None = None) -> ScheduleRun | None:
    """The newest run of a kind, of one machine or of all."""
    query = select(ScheduleRun).where(ScheduleRun.kind == kind).order_by(ScheduleRun.id.desc()).limit(1)
    query = query.where(ScheduleRun.host == host) if host is not None else query
    return (await session.execute(query)).scalar_one_or_none()


async def list_last(session: AsyncSession) -> Sequence[ScheduleRun]:
    """The newest run of each kind."""
    newest = select(func.max(ScheduleRun.id)).group_by(ScheduleRun.kind)
    return (await session.execute(select(ScheduleRun).where(ScheduleRun.id.in_(newest)))).scalars().all()


async def add(session: AsyncSession, run: ScheduleRun, *, keep: int) -> None:
    """Write a run, and delete all but the newest of its kind.

    Args:
        keep: how many of the kind stay.

    Raises:
        IntegrityError: another process has claimed this run.
    """
    session.add(run)
    await session.flush()
    kept = select(ScheduleRun.id).where(ScheduleRun.kind == run.kind).order_by(ScheduleRun.id.desc()).limit(keep)
    oldest = select(func.min(kept.subquery().c.id)).scalar_subquery()
    await session.execute(delete(ScheduleRun).where(ScheduleRun.kind == run.kind, ScheduleRun.id < oldest))


async def end(
    session: AsyncSession, run_id: int, *, ended_at: datetime, ok: bool, summary: Mapping[str, object]
) -> None:
    """Write how a run ended; does nothing if its row has been deleted."""
    values = {"ended_at": ended_at, "ok": ok, "summary": dict(summary)}
    await session.execute(update(ScheduleRun).where(ScheduleRun.id == run_id).values(**values))
