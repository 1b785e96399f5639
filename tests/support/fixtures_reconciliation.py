"""Fixtures of the reconciliation tests: a storage service with rows, on a folder and on a new bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from backend.database.session import Database
from backend.services.reconciliation import Bounds, Grace, ReconciliationService, RepairReport, Scope, VerifyReport
from backend.services.storage import ObjectStore, StorageConfig, StorageService
from tests.support.recordings import open_database

AT_ONCE = Grace(orphan_s=-60, stale_s=-60)
"""Nothing is too young. Below zero, because a store's clock may be ahead of ours."""


def reconciliation(storage: StorageService, database: Database, **options: int) -> ReconciliationService:
    """What compares this storage with these rows."""
    parts = storage.parts
    return ReconciliationService(parts.stores, parts.spool, parts.space, database, **options)


class Keeper:
    """A storage service, its rows, and what compares the two; the back doors are for damage."""

    def __init__(self, storage: StorageService, database: Database, upload_dir: Path, s3: Any, bucket: str) -> None:
        self.storage = storage
        self.database = database
        self.upload_dir = upload_dir
        self.s3 = s3
        self.bucket = bucket
        self.reconciliation = reconciliation(storage, database)

    @property
    def stores(self) -> tuple[ObjectStore, ...]:
        return self.storage.parts.stores.all

    def in_batches_of(self, size: int) -> None:
        self.reconciliation = reconciliation(self.storage, self.database, batch=size)

    async def verify(self, grace: Grace = AT_ONCE, bounds: Bounds = Bounds(), **scope: Any) -> VerifyReport:  # noqa: B008
        return await self.reconciliation.verify(Scope(grace=grace, bounds=bounds, **scope))

    async def repair(self, *, apply: bool = True, grace: Grace = AT_ONCE, **scope: Any) -> RepairReport:
        return await self.reconciliation.repair(Scope(grace=grace, **scope), apply=apply)

    async def read(self, locator: str) -> bytes:
        return b"".join([chunk async for chunk in self.storage.open(locator)])

    def remove(self, locator: str) -> None:
        """Delete an object behind the service's back."""
        if locator.startswith("s3://"):
            self.s3.delete_object(Bucket=self.bucket, Key=self._key(locator))
        else:
            Path(locator).unlink()

    def overwrite(self, locator: str, data: bytes) -> None:
        """Put other bytes in an object's place, or create one."""
        if locator.startswith("s3://"):
            self.s3.put_object(Bucket=self.bucket, Key=self._key(locator), Body=data)
        else:
            Path(locator).parent.mkdir(parents=True, exist_ok=True)
            Path(locator).write_bytes(data)

    def everything(self) -> dict[str, bytes]:
        """Every object and file: where → bytes."""
        files = [path for path in self.upload_dir.rglob("*") if path.is_file() and ".spool" not in path.parts]
        found = {str(path): path.read_bytes() for path in files}
        for item in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", ()) if self.s3 else ():
            with self.s3.get_object(Bucket=self.bucket, Key=item["Key"])["Body"] as body:
                found[f"s3://{self.bucket}/{item['Key']}"] = body.read()
        return found

    def _key(self, locator: str) -> str:
        return locator.removeprefix(f"s3://{self.bucket}/")


@pytest.fixture(params=["local", "s3"])
async def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    """Once with a folder alone, once with a bucket and the folder as its fallback."""
    async with AsyncExitStack() as stack:
        yield await _open(stack, request, tmp_path, on_s3=request.param == "s3")


@pytest.fixture
async def local_keeper(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    async with AsyncExitStack() as stack:
        yield await _open(stack, request, tmp_path, on_s3=False)


@pytest.fixture
async def s3_keeper(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    async with AsyncExitStack() as stack:
        yield await _open(stack, request, tmp_path, on_s3=True)


async def _open(stack: AsyncExitStack, request: pytest.FixtureRequest, tmp_path: Path, *, on_s3: bool) -> Keeper:
    upload_dir, s3, bucket = tmp_path / "uploads", None, f"reconciliation-{uuid4().hex[:8]}"
    config = StorageConfig(_env_file=None, upload_dir=str(upload_dir))
    if on_s3:
        s3 = request.getfixturevalue("raw_s3")
        s3.create_bucket(Bucket=bucket)
        make = request.getfixturevalue("s3_config")
        config = make(request.getfixturevalue("swift"), upload_dir=str(upload_dir), s3_bucket_name=bucket)
    storage = await stack.enter_async_context(StorageService(config))
    database = await open_database(tmp_path / "rows.db")
    stack.push_async_callback(database.close)
    return Keeper(storage, database, upload_dir, s3, bucket)
