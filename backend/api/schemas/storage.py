"""What goes over the wire about the stores: what an operator asks for, and the reports. The command line prints them
too."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from backend.services.lifecycle.drain import Backlog, DrainReport
from backend.services.reconciliation import (
    Bounds,
    EmptyingReport,
    Grace,
    RebuildReport,
    RepairReport,
    Scope,
    VerifyReport,
)
from backend.services.reconciliation.usage import Usage

MAX_SECONDS = 300


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Report(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ScopeIn(_Request):
    """What is looked at. A request looks at a part and says in `cursor` where the next one begins."""

    deep: bool = Field(False, description="Read every object and compare its SHA-256")
    cursor: str | None = Field(None, max_length=2000, description="Of the last report; without: at the beginning")
    max_objects: int = Field(10_000, ge=1, le=1_000_000, description="Look at about so many rows and objects")
    max_seconds: float = Field(20, gt=0, le=MAX_SECONDS, description="Begin with nothing after so long")
    max_bytes_per_s: int = Field(0, ge=0, description="Read no faster; 0: as fast as can be")
    grace_s: float = Field(3600, ge=0, le=1e9, description="Objects without a row count once they are so old")
    stale_after_s: float = Field(
        86_400, ge=0, le=1e9, description="Files and parts of unfinished uploads count once they are so old"
    )

    def to_scope(self) -> Scope:
        return Scope(
            deep=self.deep,
            max_bytes_per_s=self.max_bytes_per_s,
            grace=Grace(self.grace_s, self.stale_after_s),
            bounds=Bounds(self.cursor, self.max_objects, self.max_seconds),
        )


class RepairIn(ScopeIn):
    apply: bool = Field(False, description="Do it; without: only say what would be done")


class DrainIn(_Request):
    retry_parked: bool = Field(False, description="Try again what could not move before")
    max_seconds: float = Field(20, gt=0, le=MAX_SECONDS, description="Begin with no object after so long")


class UncheckedOut(_Report):
    store: str = Field(examples=["s3"])
    objects: int = Field(description="0 if nobody knows how many")
    reason: str


class CheckedOut(_Report):
    rows: int
    objects: int
    hashed_bytes: int
    foreign: int = Field(description="Files whose names are not Aperta's; left alone")
    spool_files: int
    unfinished_uploads: int


class FindingOut(_Report):
    kind: str = Field(
        description="missing, wrong_size, corrupt, found_again, orphan, stale_spool_file or unfinished_upload",
        examples=["orphan"],
    )
    store: str = Field(examples=["local"])
    locator: str
    conversation_id: str | None
    size_bytes: int | None
    detail: str


class VerifyOut(_Report):
    status: Literal["clean", "findings", "incomplete"] = Field(
        description="incomplete: something could not be looked at; `unchecked` says what"
    )
    deep: bool
    cursor: str | None = Field(description="Where the next part begins; null: this was the last")
    checked: CheckedOut
    counts: dict[str, int] = Field(description="Kind of finding → how many", examples=[{"orphan": 1}])
    findings: list[FindingOut] = Field(description="The first thousand")
    unchecked: list[UncheckedOut]
    seconds: float

    @classmethod
    def from_report(cls, report: VerifyReport) -> VerifyOut:
        return cls.model_validate(report)


class ActionOut(_Report):
    kind: str = Field(
        description="point_elsewhere, mark_lost, clear_mark, reattach, restore, quarantine, remove, abort or leave",
        examples=["quarantine"],
    )
    finding: str = Field(description="What was wrong", examples=["orphan"])
    locator: str
    conversation_id: str | None
    detail: str
    target: str | None = Field(description="Where the object is, or the row points, now")
    error: str | None = Field(description="Why it could not be done")


class RepairOut(_Report):
    applied: bool = Field(description="false: nothing was changed")
    cursor: str | None = Field(description="Where the next part begins; null: this was the last")
    counts: dict[str, int] = Field(description="Kind of action → how many", examples=[{"quarantine": 1}])
    failed: int
    lost: int = Field(description="Objects of which no store has an intact copy")
    actions: list[ActionOut] = Field(description="The first thousand")
    unchecked: list[UncheckedOut]
    seconds: float

    @classmethod
    def from_report(cls, report: RepairReport) -> RepairOut:
        return cls.model_validate(report)


class GapOut(_Report):
    subject: str = Field(description="A conversation, or the locator of a manifest")
    reason: str


class RebuildOut(_Report):
    applied: bool
    manifests: int
    rebuilt: int
    present: int = Field(description="Manifests of conversations that were there already")
    gap_count: int
    gaps: list[GapOut] = Field(description="The first thousand")
    unchecked: list[UncheckedOut]
    seconds: float

    @classmethod
    def from_report(cls, report: RebuildReport) -> RebuildOut:
        return cls.model_validate(report)


class EmptyingOut(_Report):
    applied: bool
    objects: int
    bytes: int
    unchecked: list[UncheckedOut]

    @classmethod
    def from_report(cls, report: EmptyingReport) -> EmptyingOut:
        return cls.model_validate(report)


class AmountOut(_Report):
    objects: int
    bytes: int


class HoldingOut(AmountOut):
    store: str = Field(examples=["s3"])
    kind: str = Field(examples=["audio"])


class BacklogOut(AmountOut):
    parked: int = Field(description="How many of them do not move until somebody looks")
    oldest_s: float = Field(description="How long the oldest of the others has been waiting")


class UsageOut(_Report):
    holdings: list[HoldingOut] = Field(description="By store and kind, as the rows say")
    lost: int = Field(description="Objects whose row says that they are missing or damaged")
    backlog: BacklogOut = Field(description="What is on the local disk and belongs in S3")
    spool: AmountOut = Field(description="Uploads in progress, recordings that wait, and what was left behind")
    quarantine: dict[str, AmountOut] = Field(description="By store")
    free_bytes: int | None = Field(description="Room on the local disk")
    unchecked: list[UncheckedOut]

    @classmethod
    def from_usage(cls, usage: Usage, backlog: Backlog) -> UsageOut:
        names = ("holdings", "lost", "spool", "quarantine", "free_bytes", "unchecked")
        return cls.model_validate({**{name: getattr(usage, name) for name in names}, "backlog": backlog})


class DrainOut(_Report):
    moved: int
    bytes: int
    skipped: int = Field(description="Moved or deleted meanwhile, or somebody is at it")
    parked: int = Field(description="Cannot move; their rows say why")
    failed: int = Field(description="The local disk did not give them; they stay pending")
    stopped: str | None = Field(description="Why it ended early")
    backlog: BacklogOut = Field(description="What is left")

    @classmethod
    def from_report(cls, report: DrainReport, backlog: Backlog) -> DrainOut:
        names = ("moved", "bytes", "skipped", "parked", "failed", "stopped")
        return cls.model_validate({**{name: getattr(report, name) for name in names}, "backlog": backlog})


class StorageInfoOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    storage_type: str = Field(description="Where a save goes now", examples=["local"])
    local_path: str = Field(examples=["./uploads"])
    s3_bucket: str | None
    s3_enabled: bool = Field(description="S3 is in use and answers")
    s3_endpoint: str | None
    s3_region: str | None
    reason: str | None = Field(description="Why S3 is configured but not in use")
    fallback: bool = Field(description="A save goes to the local folder when S3 fails")
    free_bytes: int | None = Field(description="Room on the local disk")
    breaker: Literal["closed", "open", "half_open"] | None = Field(
        description="closed: saves try S3; open: they do not; half_open: it is being asked; null: S3 is not in use"
    )
    cause: Literal["configuration", "full", "unavailable"] | None = Field(
        description="What kind of reason: at `configuration` waiting does not help"
    )
    retry_at: datetime | None = Field(description="When S3 is asked next")
    retry_in_s: float | None = Field(description="The same from now on", examples=[17.4])
    disk: Literal["ok", "low", "full"] = Field(description="low: below the soft limit; full: uploads are refused")
    disk_soft_limit_bytes: int
    disk_hard_limit_bytes: int
    drain_pending_objects: int | None = Field(
        None, description="Objects on the local disk that belong in S3; null: the database does not answer"
    )
    drain_pending_bytes: int | None = Field(None, description="Their size")
    drain_oldest_s: float | None = Field(None, description="How long the oldest of those that may move has waited")
    drain_parked_objects: int | None = Field(None, description="How many of them do not move until somebody looks")
