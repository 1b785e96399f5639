"""What a caller gets of a job: a value, made from its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from backend.database.models import Job
from backend.domain.states.jobs import JobStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job at one moment.

    Attributes:
        position: its place in the queue while it waits, if that was asked for.
        priority: jobs with a smaller one are served first.
        error: why it failed, as `error_to_json` writes it.
        timings_s: seconds per stage, once it has completed.
        coverage: how much of the speech has words, once it has completed; empty if it was not measured.
    """

    id: str
    conversation_id: str
    status: JobStatus
    stage: str | None
    progress: float
    position: int | None
    priority: int
    attempt: int
    filename: str
    size_bytes: int
    sha256: str
    error: Mapping[str, object] | None
    timings_s: Mapping[str, float]
    coverage: Mapping[str, object]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def view_of(row: Job, position: int | None = None) -> JobView:
    return JobView(
        id=row.id,
        conversation_id=row.conversation_id,
        status=JobStatus(row.status),
        stage=row.stage,
        progress=row.progress,
        position=position,
        priority=row.priority,
        attempt=row.attempt,
        filename=row.filename,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        error=row.error,
        coverage=cast("Mapping[str, object]", (row.result or {}).get("coverage", {})),
        timings_s=cast("Mapping[str, float]", (row.result or {}).get("timings_s", {})),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
