"""Jobs in the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from backend.api.problems import Problem, problem_of
from backend.domain.jobs import error_from_json, seconds_left
from backend.domain.states.jobs import JobStatus
from backend.services.jobs.views import JobView


class JobOut(BaseModel):
    """A recording that is being turned into a conversation."""

    id: str = Field(examples=["job_4f2c9a51d0b84e7f8a3b6c1d2e3f4a5b"])
    conversation_id: str = Field(description="Conversation with the result, once there is one")
    status: JobStatus
    stage: str | None = Field(
        description="decode, identify, diarize, transcribe, listen, attribute or store", examples=["diarize"]
    )
    progress: float = Field(ge=0, le=1, description="Fraction done")
    seconds_left: float | None = Field(description="Estimated time left; null while unknown")
    position: int | None = Field(description="Place in the queue; null once the job runs")
    attempts: int = Field(description="Number of times the job was started")
    filename: str
    size_bytes: int
    sha256: str
    error: Problem | None = Field(description="Why the job failed")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_job(cls, job: JobView) -> JobOut:
        runs = job.status == JobStatus.RUNNING and job.started_at is not None
        elapsed_s = (datetime.now(UTC) - job.started_at).total_seconds() if job.started_at else 0.0
        return cls(
            id=job.id,
            conversation_id=job.conversation_id,
            status=job.status,
            stage=job.stage,
            progress=job.progress,
            seconds_left=seconds_left(elapsed_s, job.progress) if runs else None,
            position=job.position,
            attempts=job.attempt,
            filename=job.filename,
            size_bytes=job.size_bytes,
            sha256=job.sha256,
            error=problem_of(error_from_json(job.error)) if job.error else None,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class JobPage(BaseModel):
    jobs: list[JobOut]
    total: int
    limit: int
    offset: int

    @classmethod
    def from_jobs(cls, found: Sequence[JobView], total: int, limit: int, offset: int) -> JobPage:
        return cls(jobs=[JobOut.from_job(job) for job in found], total=total, limit=limit, offset=offset)
