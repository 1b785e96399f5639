"""StorageInfo: what an operator can see of the storage layer now, and StorageStatus, which tells it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import datetime

import anyio

from backend.concurrency.lanes import ThreadLane
from backend.services.storage.config import StorageConfig
from backend.services.storage.placement.breaker import Breaker, BreakerState, Cause
from backend.services.storage.placement.stores import Stores
from backend.services.storage.spool.space import DiskSpace, SpaceState

ASK_AGAIN_AFTER_S, WAIT_FOR_ANSWER_S = 3.0, 2.0


@dataclass(frozen=True, slots=True)
class StorageInfo:
    """A snapshot.

    Attributes:
        storage_type: where a save goes now: local or s3.
        place: the folder or the bucket that is.
        local_path: UPLOAD_DIR as configured.
        s3_enabled: S3 is in use and answers.
        reason: why S3 is configured but off; None when it is on or not configured.
        fallback: a save goes to the local folder when S3 fails.
        free_bytes: space on the local disk; None when that cannot be known.
        breaker: closed: saves try S3; open: they do not; half_open: a canary is asking S3 now. None: S3 is
            not in use.
        cause: configuration (waiting does not help), full or unavailable; None while the breaker is closed.
        retry_at: when S3 is asked next.
        retry_in_s: the same from now on.
        disk: ok; low: below the soft limit; full: below the hard one, so that uploads are refused.
    """

    storage_type: str
    place: str
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
    disk: SpaceState
    disk_soft_limit_bytes: int
    disk_hard_limit_bytes: int


class StorageStatus:
    """Tells where saves go now and why.

    Args:
        config: what was configured.
        stores: what came of that.
        breaker: the primary's.
        space: the local disk's.
        disk: the threads for disk work.
    """

    def __init__(
        self, config: StorageConfig, stores: Stores, breaker: Breaker, space: DiskSpace, disk: ThreadLane
    ) -> None:
        self._config = config
        self._stores = stores
        self._breaker = breaker
        self._space = space
        self._disk = disk
        self._asked_at = -math.inf

    def note_asked(self) -> None:
        """Remember that the primary store has just been asked whether it can be used."""
        self._asked_at = time.monotonic()

    async def get(self, *, ask: bool = True) -> StorageInfo:
        """As `StorageService.get_info`."""
        if ask and time.monotonic() - self._asked_at > ASK_AGAIN_AFTER_S:
            with anyio.move_on_after(WAIT_FOR_ANSWER_S):
                await self._breaker.ask()
            self.note_asked()
        return await self._disk.run(self._present)

    def _present(self) -> StorageInfo:
        config, stores, view = self._config, self._stores, self._breaker.view()
        error = self._breaker.error
        used = stores.fallback if error is not None and stores.fallback else stores.primary
        is_remote = not stores.primary.traits.is_local
        s3_enabled = is_remote and error is None
        self._space.look()
        return StorageInfo(
            storage_type=used.name,
            place=config.upload_dir if used.traits.is_local else f"{used.name}://{config.s3_bucket_name}",
            local_path=config.upload_dir,
            s3_bucket=config.s3_bucket_name,
            s3_enabled=s3_enabled,
            s3_endpoint=config.s3_endpoint_url,
            s3_region=config.s3_region,
            reason=str(error) if error else stores.reason,
            fallback=config.fallback,
            free_bytes=self._space.free_bytes,
            breaker=view.state if s3_enabled or view.cause else None,
            cause=view.cause,
            retry_at=view.retry_at,
            retry_in_s=view.retry_in_s,
            disk=self._space.state,
            disk_soft_limit_bytes=config.disk_soft_limit_bytes,
            disk_hard_limit_bytes=config.disk_hard_limit_bytes,
        )
