"""Queries about messages to webhooks. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database.jobs import get_job
from backend.database.models import Delivery, Job
from backend.domain.states.jobs import ENDED
from backend.errors import NotFound


async def get_delivery(
    session: AsyncSession, delivery_id: str, *, job_id: str | None = None, lock: bool = False
) -> Delivery:
    """One message; `lock` keeps others from changing it until the transaction ends.

    Raises:
        NotFound: no message has this id, or it is not about this job.
    """
    query = select(Delivery).where(Delivery.id == delivery_id.replace("\0", "?"))
    if job_id is not None:
        query = query.where(Delivery.job_id == job_id.replace("\0", "?"))
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"There is no delivery {delivery_id[:80]!r}{' of this job' if job_id else ''}.")
    return found


async def find_unannounced(session: AsyncSession, job_id: str) -> Job | None:
    """A job that has ended and has a callback but no message for it; locked, so that only one is made."""
    job = await get_job(session, job_id, lock=True)
    known = (await session.execute(select(Delivery.id).where(Delivery.job_id == job_id).limit(1))).first()
    return job if job.status in ENDED and job.callback_url and known is None else None


async def list_unannounced(session: AsyncSession, since: datetime, limit: int) -> Sequence[str]:
    """Jobs that ended since an instant, have a callback, and no message for it."""
    query = (
        select(Job.id)
        .where(Job.callback_url.is_not(None), Job.status.in_(ENDED), Job.finished_at > since)
        .where(~select(Delivery.id).where(Delivery.job_id == Job.id).exists())
        .limit(limit)
    )
    return (await session.execute(query)).scalars().all()


async def list_deliveries(session: AsyncSession, job_id: str) -> Sequence[Delivery]:
    """Every message about a job, oldest first."""
    query = select(Delivery).where(Delivery.job_id == job_id.replace("\0", "?"))
    return (await session.execute(query.order_by(Delivery.created_at, Delivery.id))).scalars().all()
