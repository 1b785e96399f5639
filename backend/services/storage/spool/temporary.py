"""The spool: where bytes become a complete, hashed, durable file before any store is tried. Knows no store."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from anyio import CancelScope

from backend.concurrency.lanes import ThreadLane
from backend.domain.lifecycle import INTERRUPTED_UPLOADS
from backend.errors import TooLarge
from backend.services.storage.files import (
    CHUNK_BYTES,
    disk_errors,
    is_locked,
    lock,
    make_folder,
    make_own_folder,
    new_file,
)
from backend.services.storage.spool.folder import SpoolFolder
from backend.services.storage.spool.space import DiskSpace
from backend.services.storage.spool.writer import Digest, FileWriter, Pipeline
from backend.services.storage.values import SpooledFile

logger = logging.getLogger(__name__)

_FILES = ("*.part", "uploads/*", "kept/*")
"""Uploads in one request, uploads that may be resumed, recordings that wait for their job."""

LOOK_EVERY_BYTES = 32 * CHUNK_BYTES
"""How often a running upload looks whether there is still space."""


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file in the spool; `modified_at` is when anything about it changed last."""

    name: str
    size_bytes: int
    modified_at: datetime


class Spool:
    """Temporary files beside the objects, on the same file system, so that a local save is a hard link."""

    def __init__(self, upload_dir: Path, lane: ThreadLane) -> None:
        self._root = upload_dir.absolute()
        self._files = SpoolFolder(self._root / ".spool", self._root, lane)
        self._folder = self._files.path
        self._lane = lane

    async def start(self) -> None:
        """Create the folder and remove what killed processes left.

        Raises:
            StorageMisconfigured: the folder cannot be created.
        """
        await self._lane.run(self._start)

    async def sweep(self) -> int:
        """Remove the files of processes that were killed while they received an upload; returns how many."""
        return await self._lane.run(self._sweep)

    @asynccontextmanager
    async def receive(
        self, stream: AsyncIterable[bytes], *, max_bytes: int | None = None, space: DiskSpace | None = None
    ) -> AsyncGenerator[SpooledFile, None]:
        """Write a stream to a durable file that is removed at the end of the context, however that comes about.

        Args:
            stream: the bytes, in chunks of any size.
            max_bytes: the most that may come.
            space: looked at now and then, for uploads of unknown length.

        Raises:
            TooLarge: as soon as more than `max_bytes` have come.
            StorageFull: no space left.
            StorageMisconfigured: the folder is read-only or not ours.
        """
        path = self._folder / f"{uuid4().hex}.part"
        held: list[int] = []  # filled by a thread, so that a caller who is cancelled at that time leaves no lock behind
        try:
            yield await self._write(path, stream, max_bytes, space, held)
        finally:
            # Shielded: a client that hangs up cancels us, and must not leave its bytes behind.
            with CancelScope(shield=True):
                await self._lane.run(_remove, path)
            for descriptor in held:
                os.close(descriptor)

    async def list_files(self) -> list[SpoolFile]:
        """Every file of an upload, complete or not, and every recording that waits for its job."""
        return await self._lane.run(self._list_files)

    async def remove(self, name: str) -> None:
        """Delete a file by the name that `list_files` gives it; a missing one is no error."""
        await self._files.remove(name)

    async def _write(
        self, path: Path, stream: AsyncIterable[bytes], max_bytes: int | None, space: DiskSpace | None, held: list[int]
    ) -> SpooledFile:
        digest = hashlib.sha256()
        file = await self._lane.run(_new_writer, path, digest, held)
        pipeline = Pipeline(self._lane, file.write)
        received_bytes, look_at_bytes = 0, LOOK_EVERY_BYTES
        try:
            async for chunk in stream:
                received_bytes += len(chunk)
                if max_bytes is not None and received_bytes > max_bytes:
                    raise TooLarge(f"The upload is larger than the {max_bytes} bytes allowed.")
                await pipeline.add(chunk)
                if space is not None and received_bytes >= look_at_bytes:
                    await self._lane.run(space.check)
                    look_at_bytes = received_bytes + LOOK_EVERY_BYTES
            await pipeline.flush()
            await self._lane.run(file.sync)
            return SpooledFile(path, file.size_bytes, digest.hexdigest())
        finally:
            await pipeline.abandon()
            file.close()

    def _list_files(self) -> list[SpoolFile]:
        found = []
        with disk_errors(self._folder):
            for path in sorted(path for pattern in _FILES for path in self._folder.glob(pattern)):
                try:
                    state = path.lstat()
                except FileNotFoundError:
                    continue
                changed_at = datetime.fromtimestamp(max(state.st_mtime, state.st_ctime), UTC)
                name = path.relative_to(self._folder).as_posix()
                found.append(SpoolFile(name, state.st_size, changed_at))
        return found

    def _start(self) -> None:
        with disk_errors(self._folder):
            make_own_folder(self._folder, self._root)
            self._sweep()

    def _sweep(self) -> int:
        with disk_errors(self._folder):
            return sum([_remove_if_stale(path) for path in self._folder.glob("*.part")])


def _new_writer(path: Path, digest: Digest, held: list[int]) -> FileWriter:
    with disk_errors(path):
        make_folder(path.parent)
        writer = FileWriter(path, new_file(path), digests=(digest,))
    with suppress(OSError):  # where files cannot be locked, none are swept
        held.append(lock(path))
    return writer


def _remove(path: Path) -> None:
    """Never raises: the error that ended the upload says more than one of the clean-up."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if os.path.lexists(path):
            logger.warning("%s was left behind: %s", path, error.strerror)


def _remove_if_stale(path: Path) -> bool:
    """Whether the file was removed. A process that receives an upload holds a lock on its file."""
    try:
        changed_at = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
        if not INTERRUPTED_UPLOADS.expired(changed_at, datetime.now(UTC)) or is_locked(path):
            return False
        path.unlink()
    except FileNotFoundError:
        return False  # another process swept it first
    return True
