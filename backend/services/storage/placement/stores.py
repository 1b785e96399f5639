"""Which stores a configuration means: where saves go, what takes over, and who can still read older locators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.concurrency.lanes import ThreadLane
from backend.errors import StorageMisconfigured
from backend.services.storage.config import StorageConfig
from backend.services.storage.port import DirectUploads, ObjectStore
from backend.services.storage.spool.temporary import Spool
from backend.services.storage.stores.local.store import LocalStore
from backend.services.storage.stores.s3.direct import S3DirectUploads
from backend.services.storage.stores.s3.store import S3Store


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores in use.

    Attributes:
        primary: saves go here.
        fallback: saves go here when the primary fails; None: they fail.
        others: never written to, but rows may still point into them.
        reason: why S3 is configured and yet not the primary.
        direct: takes uploads past Aperta.
    """

    primary: ObjectStore
    fallback: ObjectStore | None = None
    others: tuple[ObjectStore, ...] = ()
    reason: str | None = None
    direct: DirectUploads | None = None

    @property
    def all(self) -> tuple[ObjectStore, ...]:
        return tuple(store for store in (self.primary, self.fallback, *self.others) if store is not None)


def open_stores(config: StorageConfig, disk: ThreadLane) -> Stores:
    """Choose the stores. Touches neither disk nor network: whether S3 can be used is asked of it later.

    Raises:
        StorageMisconfigured: S3 is demanded without a bucket, and falling back is not allowed.
    """
    local = LocalStore(config.upload_dir, disk)
    bucket = config.s3_bucket_name
    if config.storage_backend == "local":
        return Stores(local, reason="STORAGE_BACKEND=local" if bucket else None)
    if bucket:
        s3, direct = S3Store(config), S3DirectUploads(config)
        if config.fallback:
            return Stores(s3, fallback=local, direct=direct)
        return Stores(s3, others=(local,), direct=direct)
    if config.storage_backend == "auto":
        return Stores(local)
    reason = "STORAGE_BACKEND=s3 but S3_BUCKET_NAME is not set."
    if not config.fallback:
        raise StorageMisconfigured(f"{reason} Set it, or STORAGE_BACKEND=local.")
    return Stores(local, reason=reason)


def open_spool(config: StorageConfig, disk: ThreadLane) -> Spool:
    """Return the spool beside the local objects."""
    return Spool(Path(config.upload_dir), disk)
