"""The spool: where bytes become a complete, hashed, durable file before any store is tried. Knows no store."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from anyio import CancelScope

from backend.errors import TooLarge
from backend.services.storage.base import SpooledFile
from backend.services.storage.disk import CHUNK_BYTES, disk_errors, make_folder, new_file
from backend.services.storage.threads import ThreadLane

logger = logging.getLogger(__name__)

STALE_AFTER_S = 24 * 3600
"""No upload runs that long: a spool file this old was left by a process that was killed."""


class Spool:
    """Temporary files beside the objects, on the same file system, so that a local save is a hard link."""

    def __init__(self, upload_dir: Path, lane: ThreadLane) -> None:
        self._folder = upload_dir.absolute() / ".spool"
        self._lane = lane

    async def start(self) -> None:
        """Create the folder and remove what killed processes left.

        Raises:
            StorageMisconfigured: the folder cannot be created.
        """
        await self._lane.run(self._start)

    @asynccontextmanager
    async def receive(
        self, stream: AsyncIterable[bytes], *, max_bytes: int | None = None
    ) -> AsyncGenerator[SpooledFile, None]:
        """Write a stream to a durable file that is removed at the end of the context, however that comes about.

        Raises:
            TooLarge: as soon as more than `max_bytes` have come.
            StorageFull: no space left.
            StorageMisconfigured: the folder is read-only or not ours.
        """
        path = self._folder / f"{uuid4().hex}.part"
        try:
            yield await self._write(path, stream, max_bytes)
        finally:
            # Shielded: a client that hangs up cancels us, and must not leave its bytes behind.
            with CancelScope(shield=True):
                await self._lane.run(_remove, path)

    async def _write(self, path: Path, stream: AsyncIterable[bytes], max_bytes: int | None) -> SpooledFile:
        file = await self._lane.run(_SpoolWriter, path)
        pending: list[bytes] = []
        pending_bytes = received_bytes = 0
        try:
            async for chunk in stream:
                received_bytes += len(chunk)
                if max_bytes is not None and received_bytes > max_bytes:
                    raise TooLarge(f"The upload is larger than the {max_bytes} bytes allowed.")
                pending.append(chunk)
                pending_bytes += len(chunk)
                if pending_bytes >= CHUNK_BYTES:
                    await self._lane.run(file.write, pending)
                    pending, pending_bytes = [], 0
            return await self._lane.run(file.finish, pending)
        finally:
            file.close()

    def _start(self) -> None:
        with disk_errors(self._folder):
            make_folder(self._folder)
            for path in self._folder.glob("*.part"):
                _remove_if_stale(path)


class _SpoolWriter:
    """One file being written; used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        with disk_errors(path):
            make_folder(path.parent)
            # Unbuffered: an error shows at the write that caused it, and closing never writes.
            self._file = os.fdopen(new_file(path), "wb", buffering=0)

    def write(self, chunks: list[bytes]) -> None:
        data = memoryview(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        self._digest.update(data)
        with disk_errors(self._path):
            while data:
                written = self._file.write(data)
                self._size_bytes += written
                data = data[written:]

    def finish(self, chunks: list[bytes]) -> SpooledFile:
        if chunks:
            self.write(chunks)
        with disk_errors(self._path):
            # A failed fsync is final: the kernel may have dropped the pages, so it is never tried again.
            os.fsync(self._file.fileno())
        return SpooledFile(self._path, self._size_bytes, self._digest.hexdigest())

    def close(self) -> None:
        self._file.close()


def _remove(path: Path) -> None:
    """Never raises: the error that ended the upload says more than one of the clean-up."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if os.path.lexists(path):
            logger.warning("%s was left behind: %s", path, error.strerror)


def _remove_if_stale(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime > STALE_AFTER_S:
            path.unlink()
    except FileNotFoundError:
        return  # another process swept it first
