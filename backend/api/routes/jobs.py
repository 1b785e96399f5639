"""Jobs: status, live events, cancelling, retrying."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from backend.api.dependencies import OwnerDep, ServicesDep
from backend.api.problems import problem_responses
from backend.api.schemas.jobs import JobOut, JobPage
from backend.domain.states.jobs import JobStatus
from backend.services.jobs.views import JobView

router = APIRouter(prefix="/jobs", tags=["jobs"])

EVENTS = {JobStatus.QUEUED: "queued", JobStatus.RUNNING: "progress"}
RECONNECT_MS = 2000


async def _find_job(job_id: str, services: ServicesDep) -> None:
    """Raise NotFound before the stream begins, while the response can still be an error."""
    await services.jobs.get(job_id)


async def _take_stream(services: ServicesDep, owner: OwnerDep) -> AsyncGenerator[None, None]:
    """Hold one of the caller's event streams until the response has ended."""
    with services.shares.stream(owner):
        yield


@router.get("", summary="List jobs, newest first", responses=problem_responses(422, 503))
async def list_jobs(
    services: ServicesDep,
    status: Annotated[JobStatus | None, Query(description="Only jobs in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> JobPage:
    found, total = await services.jobs.list(status=status, limit=limit, offset=offset)
    return JobPage.from_jobs(found, total, limit, offset)


@router.get("/{job_id}", summary="Status and progress of a job", responses=problem_responses(404, 503))
async def get_job(job_id: str, services: ServicesDep) -> JobOut:
    return JobOut.from_job(await services.jobs.get(job_id))


@router.get(
    "/{job_id}/events",
    dependencies=[Depends(_find_job), Depends(_take_stream)],
    summary="State of a job, now and after each change, as server-sent events",
    response_class=EventSourceResponse,
    responses=problem_responses(404, 429, 503),
)
async def follow_job(
    job_id: str,
    services: ServicesDep,
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncIterable[ServerSentEvent]:
    """Events `queued`, `progress`, `completed`, `failed` and `cancelled`, each with the job as its data.

    The stream ends with the job. A client that reconnects with `Last-Event-ID` receives only newer events.
    """
    async for job in services.jobs.follow(job_id):
        event_id = _event_id(job)
        if event_id != last_event_id:
            yield ServerSentEvent(
                data=JobOut.from_job(job).model_dump(mode="json"),
                event=EVENTS.get(job.status, str(job.status)),
                id=event_id,
                retry=RECONNECT_MS,
            )


@router.delete("/{job_id}", summary="Cancel a job and forget its recording", responses=problem_responses(404, 409, 503))
async def cancel_job(job_id: str, services: ServicesDep) -> JobOut:
    """A running job stops within two seconds. Cancelling a cancelled job changes nothing."""
    return JobOut.from_job(await services.jobs.cancel(job_id))


@router.post(
    "/{job_id}/retry",
    status_code=202,
    summary="Retry a failed job",
    responses=problem_responses(404, 409, 503),
)
async def retry_job(job_id: str, services: ServicesDep) -> JobOut:
    return JobOut.from_job(await services.jobs.retry(job_id))


def _event_id(job: JobView) -> str:
    """Return a different id for every state of a job."""
    return f"{job.attempt}-{job.status}-{job.stage or ''}-{job.progress:.4f}-{job.position or 0}"
