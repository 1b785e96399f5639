"""The parts that storage is made of, opened together, so that each service can be given what it needs by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backend.concurrency.lanes import ThreadLane
from backend.services.storage.config import StorageConfig
from backend.services.storage.placement.breaker import Breaker
from backend.services.storage.placement.info import StorageStatus
from backend.services.storage.placement.metrics import StorageMetrics
from backend.services.storage.placement.mover import Mover
from backend.services.storage.placement.placement import Placement
from backend.services.storage.placement.retrieval import Retrieval
from backend.services.storage.placement.stores import Stores, open_stores
from backend.services.storage.port import ObjectStore
from backend.services.storage.spool.accepted import AcceptedRecordings
from backend.services.storage.spool.resumable import ResumableFiles
from backend.services.storage.spool.space import DiskSpace
from backend.services.storage.spool.temporary import Spool

_DISK_THREADS = 16

WrapWithSpool = Callable[[ObjectStore, Spool], ObjectStore]
"""Puts a wrapper around a store, which may write temporary files to the spool."""


@dataclass(frozen=True, slots=True)
class StorageParts:
    """One of each.

    Attributes:
        config: what they were opened with.
        disk: the threads for disk work.
        stores: where objects are.
        spool: uploads in progress.
        accepted: recordings that wait for their job.
        resumable: uploads in several requests.
        breaker: whether the primary store may be tried.
        space: how full the local disk is.
        placement: puts objects into stores.
        retrieval: reads and deletes them by their locators.
        mover: moves local objects to the primary store.
        status: where saves go now, and why.
        metrics: all of that for Prometheus.
    """

    config: StorageConfig
    disk: ThreadLane
    stores: Stores
    spool: Spool
    accepted: AcceptedRecordings
    resumable: ResumableFiles
    breaker: Breaker
    space: DiskSpace
    placement: Placement
    retrieval: Retrieval
    mover: Mover
    status: StorageStatus
    metrics: StorageMetrics


def open_parts(
    config: StorageConfig, stores: Stores | None = None, *, wrap: WrapWithSpool = lambda store, _: store
) -> StorageParts:
    """Put the parts together. Touches neither disk nor network.

    Args:
        config: what to open.
        stores: use these instead of the configured ones.
        wrap: what to put around each configured store.

    Raises:
        StorageMisconfigured: as in `open_stores`.
    """
    disk, folder = ThreadLane("disk", _DISK_THREADS), Path(config.upload_dir)
    spool = Spool(folder, disk)
    stores = stores or open_stores(config, disk, partial(_wrapped, wrap, spool))
    patience_s = config.s3_connect_timeout_s + config.s3_read_timeout_s
    breaker = Breaker(stores.primary, retry_after_s=config.s3_retry_after_s, patience_s=patience_s)
    space = DiskSpace(folder, soft_bytes=config.disk_soft_limit_bytes, hard_bytes=config.disk_hard_limit_bytes)
    placement = Placement(stores, breaker, config.s3_save_timeout_s)
    return StorageParts(
        config=config,
        disk=disk,
        stores=stores,
        spool=spool,
        accepted=AcceptedRecordings(folder, disk),
        resumable=ResumableFiles(folder, disk),
        breaker=breaker,
        space=space,
        placement=placement,
        retrieval=Retrieval(stores, breaker),
        mover=Mover(stores, breaker, spool, disk),
        status=StorageStatus(config, stores, breaker, space, disk),
        metrics=StorageMetrics(stores.primary.name, breaker, space, placement, config),
    )


def _wrapped(wrap: WrapWithSpool, spool: Spool, store: ObjectStore) -> ObjectStore:
    return wrap(store, spool)
