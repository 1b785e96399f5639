"""StorageInfo: what an operator can see of the storage layer at this moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backend.services.storage.config import StorageConfig
from backend.services.storage.placement.breaker import BreakerState, BreakerView, Cause
from backend.services.storage.spool.space import Room, RoomState


@dataclass(frozen=True, slots=True)
class StorageInfo:
    """True at the moment it was made.

    Attributes:
        storage_type: where a save goes now: local or s3.
        local_path: UPLOAD_DIR as configured.
        s3_enabled: S3 is in use and answers.
        reason: why S3 is configured but off; None when it is on or not configured.
        fallback: a save goes to the local folder when S3 fails.
        free_bytes: room on the local disk; None when that cannot be known.
        breaker: closed: saves try S3; open: they do not; half_open: a canary is asking S3 at this moment. None: S3 is
            not in use.
        cause: configuration (waiting does not help), full or unavailable; None while the breaker is closed.
        retry_at: when S3 is asked next.
        retry_in_s: the same from now on.
        disk: ok; low: below the soft limit; full: below the hard one, so that uploads are refused.
    """

    storage_type: str
    local_path: str
    s3_bucket: str | None
    s3_enabled: bool
    s3_endpoint: str | None
    s3_region: str | None
    reason: str | None
    fallback: bool
    free_bytes: int | None
    breaker: BreakerState | None
    cause: Cause | None
    retry_at: datetime | None
    retry_in_s: float | None
    disk: RoomState
    disk_soft_limit_bytes: int
    disk_hard_limit_bytes: int


def storage_info(
    config: StorageConfig,
    *,
    storage_type: str,
    s3_enabled: bool,
    reason: str | None,
    breaker: BreakerView,
    room: Room,
) -> StorageInfo:
    """Put configuration and present state together."""
    return StorageInfo(
        storage_type=storage_type,
        local_path=config.upload_dir,
        s3_bucket=config.s3_bucket_name,
        s3_enabled=s3_enabled,
        s3_endpoint=config.s3_endpoint_url,
        s3_region=config.s3_region,
        reason=reason,
        fallback=config.fallback,
        free_bytes=room.free_bytes,
        breaker=breaker.state if s3_enabled or breaker.cause else None,
        cause=breaker.cause,
        retry_at=breaker.retry_at,
        retry_in_s=breaker.retry_in_s,
        disk=room.state,
        disk_soft_limit_bytes=config.disk_soft_limit_bytes,
        disk_hard_limit_bytes=config.disk_hard_limit_bytes,
    )
