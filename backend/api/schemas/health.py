"""The answer of `GET /health`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from backend.services.jobs.schedule.log import Run


class ScheduleRunOut(BaseModel):
    """The last run of one kind of periodic work, in any process."""

    worker_id: str = Field(description="The process that did it")
    started_at: datetime
    ended_at: datetime | None = Field(description="null while it runs, or if its process died")
    ok: bool | None = Field(description="Whether the work was done; if not, it is tried again")
    summary: dict[str, object] = Field(description="What was done, or `error`; empty if there was nothing to do")

    @classmethod
    def from_run(cls, run: Run) -> Self:
        return cls(
            worker_id=run.worker_id,
            started_at=run.started_at,
            ended_at=run.ended_at,
            ok=run.ok,
            summary=dict(run.summary),
        )


class Health(BaseModel):
    status: str = Field(examples=["ok"])
    version: str
    ready: bool = Field(description="All models are loaded")
    engines: dict[str, str]
    storage: str = Field(examples=["local"])
    storage_reason: str | None = Field(description="Why S3 is configured but not in use")
    breaker: Literal["closed", "open", "half_open"] | None = Field(description="Whether saves try S3: closed, they do")
    disk: Literal["ok", "low", "full"] = Field(description="Space on the local disk; full: uploads are refused")
    database: str = Field(examples=["sqlite"])
    attribution: list[str] = Field(description="Whose models are in use, under which licence")
    schedule: Mapping[str, ScheduleRunOut] = Field(
        description="Kind of periodic work → its last run; kinds that have not run yet are left out"
    )
