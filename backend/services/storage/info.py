"""StorageInfo: what an operator can see of the storage layer at this moment."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from backend.services.storage.config import StorageConfig


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


def storage_info(config: StorageConfig, *, storage_type: str, s3_enabled: bool, reason: str | None) -> StorageInfo:
    """Put configuration and present state together. Looks at the disk, so it runs in a thread."""
    return StorageInfo(
        storage_type=storage_type,
        local_path=config.upload_dir,
        s3_bucket=config.s3_bucket_name,
        s3_enabled=s3_enabled,
        s3_endpoint=config.s3_endpoint_url,
        s3_region=config.s3_region,
        reason=reason,
        fallback=config.fallback,
        free_bytes=_free_bytes(Path(config.upload_dir)),
    )


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
