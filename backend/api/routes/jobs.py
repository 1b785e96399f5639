"""Jobs: how far they are, live events, cancelling, trying again."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from backend.api.dependencies import ServicesDep
from backend.api.problems import problem_responses
from backend.api.schemas.jobs import JobOut, JobPage
from backend.database.models import Job
from backend.domain.job_states import JobStatus
from backend.services.jobs.service import JobState

router = APIRouter(prefix="/jobs", tags=["jobs"])

EVENTS = {JobStatus.QUEUED: "queued", JobStatus.RUNNING: "progress"}
RECONNECT_MS = 2000


async def _find_job(job_id: str, services: ServicesDep) -> None:
    """Before a stream begins: afterwards no error can be told any more."""
    await services.jobs.get(job_id)


@router.get("", summary="List jobs, newest first", responses=problem_responses(422, 503))
async def list_jobs(
    services: ServicesDep,
    status: Annotated[JobStatus | None, Query(description="Only those in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> JobPage:
    rows, total = await services.jobs.list(status=status, limit=limit, offset=offset)
    return JobPage.from_rows(rows, total, limit, offset)


@router.get("/{job_id}", summary="How far a job is", responses=problem_responses(404, 503))
async def get_job(job_id: str, services: ServicesDep) -> JobOut:
    return JobOut.from_state(await services.jobs.get(job_id))


@router.get(
    "/{job_id}/events",
    dependencies=[Depends(_find_job)],
    summary="A job's state now and whenever it changes, as server-sent events",
    response_class=EventSourceResponse,
    responses=problem_responses(404, 503),
)
async def follow_job(
    job_id: str,
    services: ServicesDep,
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncIterable[ServerSentEvent]:
    """Events `queued`, `progress`, `completed`, `failed` and `cancelled`, each with the job as its data.

    The stream ends with the job. Whoever reconnects with `Last-Event-ID` is told only what has changed since.
    """
    async for state in services.jobs.follow(job_id):
        event_id = _event_id(state)
        if event_id != last_event_id:
            yield ServerSentEvent(
                data=JobOut.from_state(state).model_dump(mode="json"),
                event=EVENTS.get(JobStatus(state.job.status), str(state.job.status)),
                id=event_id,
                retry=RECONNECT_MS,
            )


@router.delete("/{job_id}", summary="Cancel a job and forget its recording", responses=problem_responses(404, 409, 503))
async def cancel_job(job_id: str, services: ServicesDep) -> JobOut:
    """It stops within two seconds, also in the middle of a transcription. One that is cancelled already stays so."""
    return JobOut.from_row(await services.jobs.cancel(job_id))


@router.post(
    "/{job_id}/retry",
    status_code=202,
    summary="Queue a failed job once more",
    responses=problem_responses(404, 409, 503),
)
async def retry_job(job_id: str, services: ServicesDep) -> JobOut:
    return JobOut.from_row(await services.jobs.retry(job_id))


def _event_id(state: JobState) -> str:
    """What tells two states of one job apart."""
    job: Job = state.job
    return f"{job.attempt}-{job.status}-{job.stage or ''}-{job.progress:.4f}-{state.position or 0}"
