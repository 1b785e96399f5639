"""LocalStore: objects as files below UPLOAD_DIR."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import BinaryIO

from backend.concurrency.lanes import ThreadLane
from backend.errors import ObjectExists, ObjectMissing
from backend.services.storage.files import (
    CHUNK_BYTES,
    disk_errors,
    make_folder,
    open_file,
    place,
    refuse_links,
    remove_empty_folders,
    storage_error,
    sync_folder,
)
from backend.services.storage.integrity import Integrity
from backend.services.storage.keys import validated_key
from backend.services.storage.port import validated_range
from backend.services.storage.stores.local.maintenance import LocalMaintenance
from backend.services.storage.stores.local.paths import LocalPaths
from backend.services.storage.stores.maintained import MaintainedStore
from backend.services.storage.values import (
    Expected,
    GiveUp,
    LocalFile,
    NewObject,
    ObjectKind,
    ObjectState,
    StoredObject,
    StoreTraits,
)

_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalStore(MaintainedStore):
    """Write-once files in a folder. A locator is the folder as configured, a slash and the key.

    Args:
        upload_dir: the folder; a relative one is taken from the working directory of now.
        lane: the threads for disk work.
    """

    def __init__(self, upload_dir: str, lane: ThreadLane) -> None:
        self._paths = LocalPaths(upload_dir)
        super().__init__(LocalMaintenance(self._paths, lane))
        self._root = self._paths.root
        self._lane = lane
        self._integrity = Integrity()

    @property
    def name(self) -> str:
        return "local"

    @property
    def traits(self) -> StoreTraits:
        return StoreTraits(is_local=True, serves_paths=True)

    def owns(self, locator: str) -> bool:
        return self._paths.owns(locator)

    def locator(self, kind: ObjectKind, key: str) -> str:  # noqa: ARG002
        return self._paths.locator(key)

    def key(self, locator: str) -> str:
        return self._paths.key(locator)

    async def check(self, *, write: bool = True) -> None:
        await self._lane.run(self._check, write)

    async def put(self, new: NewObject, *, give_up: GiveUp | None = None) -> StoredObject:  # noqa: ARG002
        """Files carry no metadata; it is in the metadata object beside them."""
        locator, source = self._paths.locator(new.key), new.spooled
        await self._lane.run(self._place, source.path, validated_key(new.key))
        return StoredObject(locator, self.name, new.key, new.kind, source.size_bytes, source.sha256, new.content_type)

    async def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        validated_range(start, end)
        file = await self._lane.run(self._open, locator, start)
        try:
            while chunk := await self._lane.run(file.read, _next_bytes(file.tell(), end)):
                yield chunk
        except OSError as error:
            raise storage_error(error, Path(locator)) from error
        finally:
            file.close()

    async def stat(self, locator: str) -> ObjectState:
        found = await self._lane.run(self._stat, locator)
        return ObjectState(found.st_size, f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}")

    async def delete(self, locator: str) -> None:
        await self._lane.run(self._delete, locator)

    async def access(
        self,
        locator: str,
        *,
        filename: str,  # noqa: ARG002
        content_type: str,  # noqa: ARG002
        expected: Expected | None = None,
    ) -> LocalFile:
        found = await self._lane.run(self._stat, locator)
        path = self._paths.path(locator)
        if expected is not None:
            await self._lane.run(self._integrity.check, path, found, locator, expected)
        return LocalFile(path)

    async def close(self) -> None:
        return None

    def _check(self, write: bool) -> None:
        with disk_errors(self._root):
            make_folder(self._root)
            if write and not os.access(self._root, os.W_OK):
                raise PermissionError(13, "Permission denied", str(self._root))

    def _place(self, source: Path, key: str) -> None:
        target = self._root / key
        with disk_errors(target):
            try:
                self._make_parents_and_place(source, target)
            except FileExistsError as error:
                raise ObjectExists(f"{self._paths.prefix}{key} exists already.") from error
            except OSError:
                remove_empty_folders(target.parent, self._root)
                raise

    def _make_parents_and_place(self, source: Path, target: Path, attempts: int = 5) -> None:
        """Try again when a concurrent delete removes the new, still empty folders."""
        try:
            refuse_links(target.parent, self._root)
            make_folder(target.parent)
            refuse_links(target.parent, self._root)
            place(source, target, self._root)
        except FileNotFoundError:
            if attempts <= 1 or not source.exists():
                raise
            self._make_parents_and_place(source, target, attempts - 1)

    def _open(self, locator: str, start: int) -> BinaryIO:
        path = self._paths.path(locator)
        try:
            # Unbuffered: reads are whole chunks already.
            file = os.fdopen(open_file(path), "rb", buffering=0)
        except _NO_FILE as error:
            raise _missing(locator) from error
        except OSError as error:
            raise storage_error(error, path) from error
        file.seek(start)
        return file

    def _stat(self, locator: str) -> os.stat_result:
        path = self._paths.path(locator)
        try:
            if path.is_dir():
                raise IsADirectoryError(locator)
            return path.stat()
        except _NO_FILE as error:
            raise _missing(locator) from error
        except OSError as error:
            raise storage_error(error, path) from error

    def _delete(self, locator: str) -> None:
        path = self._paths.path(locator)
        with disk_errors(path):
            if path.is_dir():
                return
            try:
                path.unlink()
                sync_folder(path.parent)
            except _NO_FILE:
                return
            remove_empty_folders(path.parent, self._root)


def _missing(locator: str) -> ObjectMissing:
    return ObjectMissing(f"{locator} is not in local storage.")


def _next_bytes(position: int, end: int | None) -> int:
    return CHUNK_BYTES if end is None else max(0, min(CHUNK_BYTES, end - position))
