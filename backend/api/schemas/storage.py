"""Requests and reports about the stores, for operators. The command line prints the same reports."""

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
    RelocationReport,
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
    """What to inspect. One request covers a part; the report's `cursor` says where the next one starts."""

    deep: bool = Field(False, description="Read every object and compare its SHA-256")
    cursor: str | None = Field(
        None, max_length=2000, description="Cursor from the previous report; omit to start from the beginning"
    )
    max_objects: int = Field(10_000, ge=1, le=1_000_000, description="Stop after about this many rows and objects")
    max_seconds: float = Field(20, gt=0, le=MAX_SECONDS, description="Stop starting new work after this many seconds")
    max_bytes_per_s: int = Field(0, ge=0, description="Limit on the read rate; 0: no limit")
    grace_s: float = Field(
        3600, ge=0, le=1e9, description="Report an object without a row only if it is older than this many seconds"
    )
    stale_after_s: float = Field(
        86_400,
        ge=0,
        le=1e9,
        description="Report files and parts of unfinished uploads only if they are older than this many seconds",
    )

    def to_scope(self) -> Scope:
        return Scope(
            deep=self.deep,
            max_bytes_per_s=self.max_bytes_per_s,
            grace=Grace(self.grace_s, self.stale_after_s),
            bounds=Bounds(self.cursor, self.max_objects, self.max_seconds),
        )


class RepairIn(ScopeIn):
    apply: bool = Field(False, description="Make the changes; if false, only report them")


class DrainIn(_Request):
    retry_parked: bool = Field(False, description="Also try objects that could not be moved before")
    max_seconds: float = Field(
        20, gt=0, le=MAX_SECONDS, description="Stop starting new objects after this many seconds"
    )


class UncheckedOut(_Report):
    store: str = Field(examples=["s3"])
    objects: int = Field(description="How many could not be checked; 0 if that is unknown")
    reason: str


class CheckedOut(_Report):
    rows: int
    objects: int
    hashed_bytes: int
    foreign: int = Field(description="Files whose names are not Aperta's; they are left alone")
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
        description="incomplete: a part could not be checked; see `unchecked`"
    )
    deep: bool
    cursor: str | None = Field(description="Pass this to get the next part; null after the last part")
    checked: CheckedOut
    counts: dict[str, int] = Field(description="Number of findings of each kind", examples=[{"orphan": 1}])
    findings: list[FindingOut] = Field(description="At most the first thousand")
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
    target: str | None = Field(description="New place of the object, or of what its row points to")
    error: str | None = Field(description="Why the action failed")


class RepairOut(_Report):
    applied: bool = Field(description="Whether the changes were made")
    cursor: str | None = Field(description="Pass this to get the next part; null after the last part")
    counts: dict[str, int] = Field(description="Number of actions of each kind", examples=[{"quarantine": 1}])
    failed: int
    lost: int = Field(description="Objects without an intact copy in any store")
    actions: list[ActionOut] = Field(description="At most the first thousand")
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
    present: int = Field(description="Manifests whose conversation already exists")
    gap_count: int
    gaps: list[GapOut] = Field(description="At most the first thousand")
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


class AbsenceOut(_Report):
    locator: str
    why: str


class RelocationOut(_Report):
    applied: bool
    new: str
    objects: int
    bytes: int
    missing: int
    examples: list[AbsenceOut]

    @classmethod
    def from_report(cls, report: RelocationReport) -> RelocationOut:
        return cls.model_validate(report)


class AmountOut(_Report):
    objects: int
    bytes: int


class HoldingOut(AmountOut):
    store: str = Field(examples=["s3"])
    kind: str = Field(examples=["audio"])


class BacklogOut(AmountOut):
    parked: int = Field(description="Objects that cannot move until an operator acts")
    oldest_s: float = Field(description="Age in seconds of the oldest object that can move")


class UsageOut(_Report):
    holdings: list[HoldingOut] = Field(description="Objects and bytes by store and kind, according to the rows")
    lost: int = Field(description="Objects that are marked as missing or damaged")
    backlog: BacklogOut = Field(description="Objects on the local disk that belong in S3")
    spool: AmountOut = Field(description="Uploads in progress, waiting recordings, and leftovers")
    quarantine: dict[str, AmountOut] = Field(description="By store")
    free_bytes: int | None = Field(description="Free space on the local disk")
    unchecked: list[UncheckedOut]

    @classmethod
    def from_usage(cls, usage: Usage, backlog: Backlog) -> UsageOut:
        names = ("holdings", "lost", "spool", "quarantine", "free_bytes", "unchecked")
        return cls.model_validate({**{name: getattr(usage, name) for name in names}, "backlog": backlog})


class DrainOut(_Report):
    moved: int
    bytes: int
    skipped: int = Field(description="Already moved or deleted, or being moved by another process")
    parked: int = Field(description="Objects that cannot move; their rows say why")
    failed: int = Field(description="Objects that the local disk could not read; they stay pending")
    stopped: str | None = Field(description="Why the run ended early; null if it did not")
    backlog: BacklogOut = Field(description="What still waits")

    @classmethod
    def from_report(cls, report: DrainReport, backlog: Backlog) -> DrainOut:
        names = ("moved", "bytes", "skipped", "parked", "failed", "stopped")
        return cls.model_validate({**{name: getattr(report, name) for name in names}, "backlog": backlog})


class StorageInfoOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    storage_type: str = Field(description="Store that receives new objects", examples=["local"])
    local_path: str = Field(examples=["./uploads"])
    s3_bucket: str | None
    s3_enabled: bool = Field(description="Whether S3 is in use and reachable")
    s3_endpoint: str | None
    s3_region: str | None
    reason: str | None = Field(description="Why S3 is configured but not in use")
    fallback: bool = Field(description="Whether objects are saved to the local folder while S3 fails")
    free_bytes: int | None = Field(description="Free space on the local disk")
    breaker: Literal["closed", "open", "half_open"] | None = Field(
        description="closed: S3 is used; open: S3 is skipped; half_open: S3 is being tested; null: S3 is not configured"
    )
    cause: Literal["configuration", "full", "unavailable"] | None = Field(
        description="Kind of reason; `configuration` does not go away by waiting"
    )
    retry_at: datetime | None = Field(description="When S3 is tried next")
    retry_in_s: float | None = Field(description="Seconds until `retry_at`", examples=[17.4])
    disk: Literal["ok", "low", "full"] = Field(description="low: below the soft limit; full: uploads are refused")
    disk_soft_limit_bytes: int
    disk_hard_limit_bytes: int
    drain_pending_objects: int | None = Field(
        None, description="Objects on the local disk that belong in S3; null while the database is unavailable"
    )
    drain_pending_bytes: int | None = Field(None, description="Size of these objects")
    drain_oldest_s: float | None = Field(None, description="Age in seconds of the oldest object that can move")
    drain_parked_objects: int | None = Field(None, description="Objects that cannot move until an operator acts")
