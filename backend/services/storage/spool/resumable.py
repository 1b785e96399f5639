"""Files that grow over several requests: UPLOAD_DIR/.spool/uploads. Who may send what is decided elsewhere.

A byte counts as arrived once it is fsynced and the caller has written down that it is. So after a crash the file may be
longer than what is written down, never shorter; the surplus, which a power loss may have torn, is cut off and sent
again. The size of the file alone would promise bytes that the disk never got.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from anyio import CancelScope

from backend.concurrency.lanes import ThreadLane
from backend.errors import AppError, ChecksumMismatch, ObjectMissing, TooLarge, UploadInUse
from backend.services.storage.files import (
    disk_errors,
    make_own_folder,
    new_file,
    open_file,
    place,
    refuse_links,
    sync_folder,
)
from backend.services.storage.spool.folder import SpoolFolder
from backend.services.storage.spool.writer import Digest, FileWriter, Pipeline
from backend.services.storage.values import SpooledFile

SAFE_EVERY_BYTES = 64 * 1024 * 1024
"""The most that one request loses when the process is killed."""
HASHES_KEPT = 1024

NoteArrived = Callable[[int], Awaitable[None]]
"""Told how many bytes of the file are durable."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a piece must hash to. The algorithm is one that hashlib knows."""

    algorithm: str
    digest: bytes


class ResumableFiles:
    """
    Args:
        upload_dir: where the objects are; these files are on the same file system.
        lane: the threads for disk work.
    """

    def __init__(self, upload_dir: Path, lane: ThreadLane) -> None:
        self._root = upload_dir.absolute()
        self._files = SpoolFolder(self._root / ".spool" / "uploads", self._root, lane)
        self._folder = self._files.path
        self._lane = lane
        # Only a cache: what a restart loses is hashed again when the file is complete.
        self._hashes: OrderedDict[str, tuple[int, Digest]] = OrderedDict()

    async def create(self, name: str) -> None:
        """Make a new, empty file, durably.

        Raises:
            StorageError: the disk refuses.
        """
        await self._lane.run(self._create, name)

    @asynccontextmanager
    async def open(self, name: str) -> AsyncGenerator[ResumableFile, None]:
        """Lock a file against all processes that see this disk, until the end of the context.

        Raises:
            ObjectMissing: it is not on this machine.
            UploadInUse: another request has it.
        """
        held: list[int] = []  # filled by the thread, so that a cancelled caller leaves no lock behind
        try:
            await self._lane.run(self._lock, name, held)
            yield ResumableFile(self._folder / name, held[0], self._lane, self._hashes)
        finally:
            for descriptor in held:
                os.close(descriptor)

    async def remove(self, name: str) -> None:
        """Delete a file; a missing one is no error."""
        self._hashes.pop(name, None)
        await self._files.remove(name)

    async def names(self, older_than_s: float) -> list[str]:
        """List the files that have not changed since then."""
        return await self._files.names(older_than_s)

    def _create(self, name: str) -> None:
        with disk_errors(self._folder / name):
            make_own_folder(self._folder, self._root)
            os.close(new_file(self._folder / name))
            sync_folder(self._folder)

    def _lock(self, name: str, held: list[int]) -> None:
        path = self._folder / name
        refuse_links(self._folder, self._root)
        with disk_errors(path):
            try:
                held.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
                fcntl.flock(held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError as error:
                raise ObjectMissing(
                    f"What arrived of the upload is not on this machine ({path}). Send it to the server that it was "
                    "begun at, or begin again."
                ) from error
            except BlockingIOError as error:
                raise UploadInUse("Another request is using this upload. Try again in a moment.") from error


class ResumableFile:
    """One file, locked for the holder of this object."""

    def __init__(
        self, path: Path, descriptor: int, lane: ThreadLane, hashes: OrderedDict[str, tuple[int, Digest]]
    ) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lane = lane
        self._hashes = hashes

    async def receive(
        self,
        stream: AsyncIterable[bytes],
        *,
        start_bytes: int,
        max_bytes: int,
        note: NoteArrived,
        checksum: Checksum | None = None,
    ) -> None:
        """Append a stream. If it breaks off, what came is kept; with a checksum nothing is kept that was not checked.

        Args:
            stream: the bytes.
            start_bytes: what has arrived so far; anything beyond is cut off.
            max_bytes: how long the file may become.
            note: awaited whenever more bytes are durable, and at the end.
            checksum: of the whole stream.

        Raises:
            TooLarge: the stream is longer than the file may become.
            ChecksumMismatch: the bytes do not match it; the file is as before.
            StorageError: the disk refuses.
        """
        sha256 = self._hash_at(start_bytes)
        before = kept = sha256.copy() if sha256 else None
        whole = hashlib.new(checksum.algorithm) if checksum else None
        writer = await self._lane.run(self._writer, start_bytes, [digest for digest in (sha256, whole) if digest])
        piece = _Piece(writer, self._lane, note)
        try:
            await piece.fill(stream, max_bytes, None if checksum else SAFE_EVERY_BYTES)
            if checksum and whole and whole.digest() != checksum.digest:
                raise ChecksumMismatch("The piece does not have the checksum that it was sent with. Send it again.")
            await piece.secure()
            kept = sha256
        except BaseException as error:
            # The sender has gone, or this request was cancelled: the next one finds the bytes that came.
            if not checksum and not isinstance(error, AppError):
                with CancelScope(shield=True):
                    await piece.secure()
                kept = sha256
            raise
        finally:
            await piece.close()
            if kept and (kept is not before or piece.safe_bytes == start_bytes):
                self._remember(piece.safe_bytes, kept)

    async def hash(self, size_bytes: int) -> str:
        """The SHA-256 of a complete file; read again only if it was not received in this process.

        Raises:
            ObjectMissing: the file is shorter than it must be.
            StorageError: it cannot be read.
        """
        known, digest = self._hashes.get(self._path.name, (-1, None))
        if digest is None or known != size_bytes:
            digest = await self._lane.run(self._read_hash, size_bytes)
            self._remember(size_bytes, digest)
        return digest.hexdigest()

    @asynccontextmanager
    async def lent(self, size_bytes: int) -> AsyncGenerator[SpooledFile, None]:
        """The complete file under a second name, which may be moved away: the first one stays. No byte is copied.

        Raises:
            ObjectMissing: the file is shorter than it must be.
            StorageError: it cannot be read, or given a name.
        """
        sha256 = await self.hash(size_bytes)
        path = self._path.with_name(f"{uuid4().hex}.lent")
        try:
            await self._lane.run(_give, self._path, path)
            yield SpooledFile(path, size_bytes, sha256)
        finally:
            with CancelScope(shield=True):
                await self._lane.run(_take_back, path)

    def _hash_at(self, size_bytes: int) -> Digest | None:
        known, digest = self._hashes.pop(self._path.name, (-1, None))
        if size_bytes == 0:
            return hashlib.sha256()
        return digest if known == size_bytes else None

    def _remember(self, size_bytes: int, digest: Digest) -> None:
        self._hashes[self._path.name] = (size_bytes, digest)
        while len(self._hashes) > HASHES_KEPT:
            self._hashes.popitem(last=False)

    def _writer(self, size_bytes: int, digests: list[Digest]) -> FileWriter:
        with disk_errors(self._path):
            if os.fstat(self._descriptor).st_size < size_bytes:
                raise ObjectMissing(f"{self._path} is shorter than it was. Begin the upload again.")
            writer = FileWriter(self._path, os.dup(self._descriptor), digests=digests)
        writer.truncate(size_bytes)
        return writer

    def _read_hash(self, size_bytes: int) -> Digest:
        with disk_errors(self._path), os.fdopen(open_file(self._path), "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size_bytes:
                raise ObjectMissing(f"{self._path} is shorter than it was. Begin the upload again.")
            return hashlib.file_digest(file, "sha256")


class _Piece:
    """What one request appends. `safe_bytes` is the size of the file up to which all is durable and written down."""

    def __init__(self, writer: FileWriter, lane: ThreadLane, note: NoteArrived) -> None:
        self._writer = writer
        self._pipeline = Pipeline(lane, writer.write)
        self._lane = lane
        self._note = note
        self.safe_bytes = writer.size_bytes

    async def fill(self, stream: AsyncIterable[bytes], max_bytes: int, safe_every_bytes: int | None) -> None:
        size_bytes = self.safe_bytes
        async for chunk in stream:
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise TooLarge(f"More bytes came than the upload may have ({max_bytes}).")
            await self._pipeline.add(chunk)
            if safe_every_bytes and size_bytes - self.safe_bytes >= safe_every_bytes:
                await self.secure()
        await self._pipeline.flush()

    async def secure(self) -> None:
        await self._pipeline.flush()
        await self._lane.run(self._writer.sync)
        await self._note(self._writer.size_bytes)
        self.safe_bytes = self._writer.size_bytes

    async def close(self) -> None:
        await self._pipeline.abandon()
        self._writer.close()


def _give(path: Path, second: Path) -> None:
    with disk_errors(second):
        place(path, second, second.parent)


def _take_back(path: Path) -> None:
    with disk_errors(path):
        path.unlink(missing_ok=True)
