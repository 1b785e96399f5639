"""Queries about jobs and workers. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database.models import Conversation, Job, Worker
from backend.domain.job_states import JobStatus
from backend.errors import NotFound

ENDED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


ACTIVE = (JobStatus.QUEUED, JobStatus.RUNNING)


async def get_job(session: AsyncSession, job_id: str, *, lock: bool = False) -> Job:
    """One job; `lock` keeps others from changing it until the transaction ends.

    Raises:
        NotFound
    """
    job_id = job_id.replace("\0", "?")
    if lock:
        # A write locks on every database; SELECT … FOR UPDATE means nothing to SQLite.
        await session.execute(update(Job).where(Job.id == job_id).values(attempt=Job.attempt))
    query = select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
    found = (await session.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"There is no job {job_id[:80]!r}.")
    return found


async def list_jobs(
    session: AsyncSession, *, status: JobStatus | None, limit: int, offset: int
) -> tuple[Sequence[Job], int]:
    """A page of jobs, newest first, and how many there are in all."""
    wanted = [Job.status == status] if status else []
    total = (await session.execute(select(func.count()).select_from(Job).where(*wanted))).scalar_one()
    page = select(Job).where(*wanted).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit).offset(offset)
    return (await session.execute(page)).scalars().all(), total


async def find_by_key(session: AsyncSession, owner: str, key: str) -> Job | None:
    """The job that was asked for under this idempotency key."""
    query = select(Job).where(Job.owner == owner, Job.idempotency_key == key)
    return (await session.execute(query)).scalar_one_or_none()


async def find_by_bytes(session: AsyncSession, owner: str, sha256: str) -> Job | None:
    """The newest job of these bytes that ended well, or has not ended, and whose conversation is still there."""
    query = (
        select(Job)
        .join(Conversation, Conversation.id == Job.conversation_id)
        .where(Job.sha256 == sha256, Job.owner == owner, Conversation.deleted_at.is_(None))
        .where(Job.status.in_((*ACTIVE, JobStatus.COMPLETED)))
        .order_by(Job.created_at.desc())
        .limit(1)
    )
    return (await session.execute(query)).scalar_one_or_none()


async def count_active(session: AsyncSession, *, owner: str | None = None) -> int:
    """How many jobs wait or run."""
    query = select(func.count()).select_from(Job).where(Job.status.in_(ACTIVE))
    return (await session.execute(query.where(Job.owner == owner) if owner is not None else query)).scalar_one()


async def next_priority(session: AsyncSession, owner: str) -> int:
    """The place of an owner's next job, by start-time fair queueing (Goyal, Vin and Cheng, 1996) with equal costs.

    It comes after everything of the same owner, and after whatever is served now, but not after the rest of what others
    have waiting.
    """
    first = select(func.min(Job.priority)).where(Job.status.in_(ACTIVE))
    last = select(func.max(Job.priority)).where(Job.status.in_(ACTIVE), Job.owner == owner)
    served = (await session.execute(first)).scalar_one() or 0
    own = (await session.execute(last)).scalar_one() or 0
    return max(served, own) + 1


async def count_before(session: AsyncSession, job: Job) -> int:
    """How many waiting jobs of its queue are served before this one."""
    before = or_(
        Job.priority < job.priority,
        (Job.priority == job.priority) & (Job.created_at < job.created_at),
    )
    query = select(func.count()).select_from(Job)
    query = query.where(Job.status == JobStatus.QUEUED, Job.queue == job.queue, before)
    return (await session.execute(query)).scalar_one()


async def queue_figures(session: AsyncSession) -> Sequence[tuple[str, str, int, datetime]]:
    """Queue, status, number and oldest of the jobs that wait or run."""
    query = (
        select(Job.queue, Job.status, func.count(), func.min(Job.created_at))
        .where(Job.status.in_(ACTIVE))
        .group_by(Job.queue, Job.status)
    )
    return [(queue, status, count, oldest) for queue, status, count, oldest in await session.execute(query)]


async def update_attempt(session: AsyncSession, job_id: str, attempt: int, values: Mapping[str, Any]) -> bool:
    """Write what one attempt found out; False if it is not this attempt's job any more."""
    query = update(Job).where(Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    done = cast("CursorResult[Any]", await session.execute(query.values(**values)))
    return done.rowcount == 1


async def ids_of(session: AsyncSession, conversation_id: str) -> Sequence[str]:
    """Jobs of a conversation, also those that have ended."""
    return (await session.execute(select(Job.id).where(Job.conversation_id == conversation_id))).scalars().all()


async def attempts_of(session: AsyncSession, job_ids: Collection[str]) -> dict[str, tuple[str, int]]:
    """Job id → its status and attempt."""
    query = select(Job.id, Job.status, Job.attempt).where(Job.id.in_(job_ids))
    return {row.id: (row.status, row.attempt) for row in await session.execute(query)}


async def release(session: AsyncSession, job_id: str, worker_id: str, *, crashed: bool) -> bool:
    """Take a job from a worker, back into the queue; False if it is not the worker's."""
    values: dict[str, Any] = {"status": JobStatus.QUEUED, "worker_id": None}
    if crashed:
        values["crashes"] = Job.crashes + 1
    query = update(Job).where(Job.id == job_id, Job.worker_id == worker_id, Job.status == JobStatus.RUNNING)
    done = cast("CursorResult[Any]", await session.execute(query.values(**values)))
    return done.rowcount == 1


async def list_orphaned(session: AsyncSession) -> Sequence[Job]:
    """Running jobs whose worker is not registered."""
    query = select(Job).where(Job.status == JobStatus.RUNNING, Job.worker_id.not_in(select(Worker.id)))
    return (await session.execute(query)).scalars().all()


Seen = tuple[str, str | None, float, int]
"""What of a job changes while it waits and runs: status, stage, progress, attempt."""


async def list_seen(session: AsyncSession, job_ids: Sequence[str]) -> dict[str, Seen]:
    """How these jobs are now; any number of them."""
    found: dict[str, Seen] = {}
    for begin in range(0, len(job_ids), 1000):
        wanted = job_ids[begin : begin + 1000]
        query = select(Job.id, Job.status, Job.stage, Job.progress, Job.attempt).where(Job.id.in_(wanted))
        found |= {row[0]: (row[1], row[2], row[3], row[4]) for row in await session.execute(query)}
    return found


async def list_waiting(session: AsyncSession, before: datetime, limit: int) -> Sequence[Job]:
    """Jobs that have waited since before an instant, those served first first."""
    query = select(Job).where(Job.status == JobStatus.QUEUED, Job.created_at < before)
    return (await session.execute(query.order_by(Job.priority, Job.created_at).limit(limit))).scalars().all()


async def list_spooled(session: AsyncSession) -> set[str]:
    """Every recording that a job which has not ended, or which failed and may be tried again, still needs."""
    query = select(Job.recording).where(Job.recording.is_not(None))
    return {value for value in (await session.execute(query)).scalars() if value}


async def delete_ended(session: AsyncSession, before: datetime) -> int:
    """Forget jobs that ended before an instant and hold no recording; returns how many."""
    query = delete(Job).where(Job.status.in_(ENDED), Job.finished_at < before, Job.recording.is_(None))
    return cast("CursorResult[Any]", await session.execute(query)).rowcount
