"""Which stores a configuration means: where saves go, what takes over, and who can still read older locators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backend.concurrency.lanes import ThreadLane
from backend.errors import InvalidInput, StorageMisconfigured
from backend.services.storage.config import StorageConfig
from backend.services.storage.port import DirectUploads, ObjectStore
from backend.services.storage.stores.local.store import LocalStore
from backend.services.storage.stores.s3.connection import SCHEME, S3Connection
from backend.services.storage.stores.s3.direct import S3DirectUploads
from backend.services.storage.stores.s3.store import S3Store

WrapStore = Callable[[ObjectStore], ObjectStore]
"""Puts what changes or watches bytes around a store."""


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
        """Every store that objects may be in, the primary first."""
        return tuple(store for store in (self.primary, self.fallback, *self.others) if store is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """What rows call them."""
        return tuple(store.name for store in self.all)

    @property
    def local(self) -> tuple[ObjectStore, ...]:
        """Those whose objects are on this machine's disk."""
        return tuple(store for store in self.all if store.traits.is_local)

    def get(self, name: str) -> ObjectStore:
        """The store that rows call by this name.

        Raises:
            StorageMisconfigured: it is not in use.
        """
        for store in self.all:
            if store.name == name:
                return store
        raise StorageMisconfigured(f"The store {name} is not in use.")

    def get_owner(self, locator: str) -> ObjectStore:
        """The store that a locator leads into.

        Raises:
            StorageMisconfigured: it is not in use.
            InvalidInput: there is no such store.
        """
        for store in self.all:
            if store.owns(locator):
                return store
        if locator.startswith(SCHEME):
            why = self.reason or "S3_BUCKET_NAME is not set"
            raise StorageMisconfigured(f"{locator} is in S3, which is not in use: {why}.")
        raise InvalidInput(f"{locator[:200]!r} belongs to no store.")

    async def close(self) -> None:
        """Free connections."""
        for store in (*self.all, self.direct):
            if store is not None:
                await store.close()


def open_stores(config: StorageConfig, disk: ThreadLane, wrap: WrapStore = lambda store: store) -> Stores:
    """Choose the stores. Touches neither disk nor network: whether S3 can be used is asked of it later.

    Raises:
        StorageMisconfigured: S3 is demanded without a bucket, and falling back is not allowed.
    """
    local = wrap(LocalStore(config.upload_dir, disk))
    bucket = config.s3_bucket_name
    if config.is_local_only:
        return Stores(local, reason="STORAGE_BACKEND=local" if bucket else None)
    if bucket:
        return _with_bucket(config, local, wrap)
    if config.storage_backend == "auto":
        return Stores(local)
    reason = "STORAGE_BACKEND=s3 but S3_BUCKET_NAME is not set."
    if not config.fallback:
        raise StorageMisconfigured(f"{reason} Set it, or STORAGE_BACKEND=local.")
    return Stores(local, reason=reason)


def _with_bucket(config: StorageConfig, local: ObjectStore, wrap: WrapStore) -> Stores:
    connection = S3Connection(config)
    plain = S3Store(connection)
    direct = S3DirectUploads(connection, plain)
    if config.fallback:
        return Stores(wrap(plain), fallback=local, direct=direct)
    return Stores(wrap(plain), others=(local,), direct=direct)
