"""Bytes from a stream into a file at the disk's pace: hashed and written in a thread while the next ones arrive."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from anyio import CancelScope

from backend.concurrency.lanes import ThreadLane
from backend.services.storage.files import CHUNK_BYTES, disk_errors

KEEP_CACHED_BYTES = 256 * 1024 * 1024
"""A recording of ordinary size stays in the page cache, where decoding will look for it."""
WRITE_BACK_BYTES = 8 * 1024 * 1024
MOST_PENDING_BYTES = 4 * CHUNK_BYTES
"""The most that waits for the disk; a faster client has to wait as well."""
BATCHES_PER_TURN = 16
_MAX_PIECES = 1024  # of one writev: IOV_MAX on Linux


class Digest(Protocol):
    """A running hash of hashlib's."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Digest: ...


class FileWriter:
    """Appends to one open file and hashes what it writes. Sync; used from one thread at a time.

    Args:
        path: for messages.
        descriptor: open for writing, of an empty file or one to be truncated first; closed by `close`.
        digests: fed with everything that is written.
    """

    def __init__(self, path: Path, descriptor: int, *, digests: Sequence[Digest] = ()) -> None:
        self._path = path
        # Unbuffered: an error shows at the write that caused it, and closing never writes.
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._digests = digests
        self._hashing = ThreadPoolExecutor(1, "hash")  # starts its thread with the first task
        self._written_back_bytes = 0
        self.size_bytes = 0

    def write(self, chunks: list[bytes]) -> None:
        """Append the chunks; a large batch is hashed on another core at the same time.

        Raises:
            StorageError: what the disk says.
        """
        if len(chunks) > _MAX_PIECES:
            chunks = [b"".join(chunks)]
        if sum(map(len, chunks)) < CHUNK_BYTES:
            self._hash(chunks)
            self._append(chunks)
            return
        hashing = self._hashing.submit(self._hash, chunks)
        try:
            self._append(chunks)
        finally:
            hashing.result()

    def sync(self) -> None:
        """Make everything written so far durable.

        Raises:
            StorageError: a failed fsync is final: the kernel may have dropped the pages, so it is never tried again.
        """
        with disk_errors(self._path):
            os.fsync(self._file.fileno())

    def truncate(self, size_bytes: int) -> None:
        """Cut the file off, and go on writing there."""
        with disk_errors(self._path):
            self._file.truncate(size_bytes)
            self._file.seek(size_bytes)
        self.size_bytes = self._written_back_bytes = size_bytes

    def close(self) -> None:
        self._hashing.shutdown(wait=False)
        self._file.close()

    def _hash(self, chunks: list[bytes]) -> None:
        for digest in self._digests:
            for chunk in chunks:
                digest.update(chunk)

    def _append(self, chunks: list[bytes]) -> None:
        with disk_errors(self._path):
            self._write_all(chunks)
        if self.size_bytes - self._written_back_bytes >= WRITE_BACK_BYTES:
            self._write_back()

    def _write_all(self, chunks: list[bytes]) -> None:
        pieces = [memoryview(chunk) for chunk in chunks if chunk]
        while pieces:
            written = os.writev(self._file.fileno(), pieces)
            self.size_bytes += written
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.pop(0))
            if written:
                pieces[0] = pieces[0][written:]

    def _write_back(self) -> None:
        """Have a huge file go to the disk while it arrives, in pages that are used again and again.

        The fsync at the end then has little left to do, and the upload does not push everything else out of the
        system's page cache.
        """
        self._written_back_bytes = self.size_bytes
        if self.size_bytes > KEEP_CACHED_BYTES:
            with suppress(OSError):  # only advice; fsync reports whether the disk works
                os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Pipeline:
    """Hands a stream's chunks to a thread that writes them in batches, while the next ones arrive."""

    def __init__(self, lane: ThreadLane, write: Callable[[list[bytes]], None]) -> None:
        self._lane = lane
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._chunks: list[bytes] = []
        self._pending_bytes = 0
        self._least_bytes = CHUNK_BYTES
        self._turn: asyncio.Future[None] | None = None
        self._space = asyncio.Event()

    async def add(self, chunk: bytes) -> None:
        """Take a chunk; may raise what an earlier write ran into."""
        with self._lock:
            self._chunks.append(chunk)
            self._pending_bytes += len(chunk)
        if self._pending_bytes >= CHUNK_BYTES:
            self._start_turn()
        while self._pending_bytes >= MOST_PENDING_BYTES:
            self._space.clear()
            self._start_turn()
            await self._space.wait()

    async def flush(self) -> None:
        """Return when everything that was added has been written."""
        self._least_bytes = 1
        try:
            while self._pending_bytes or self._turn is not None:
                self._start_turn()
                if self._turn is not None:
                    # Shielded: a cancelled caller may still want to know how the write ended.
                    await asyncio.shield(self._turn)
                    self._turn = None
        finally:
            self._least_bytes = CHUNK_BYTES

    async def abandon(self) -> None:
        """Forget what is not written yet, and return when no thread uses the file any more."""
        with self._lock:
            self._chunks, self._pending_bytes = [], 0
        with CancelScope(shield=True):
            if self._turn is not None:
                await asyncio.wait([self._turn])
                if not self._turn.cancelled():
                    self._turn.exception()  # looked at: the error that ended the stream says more

    def _start_turn(self) -> None:
        """See to it that a thread writes. Raises what the last one ran into."""
        if self._turn is not None and self._turn.done():
            self._turn.result()
            self._turn = None
        if self._turn is None and self._pending_bytes:
            self._turn = asyncio.ensure_future(self._lane.run(self._write_some))
            self._turn.add_done_callback(lambda _turn: self._space.set())

    def _write_some(self) -> None:
        """In a thread: batch after batch without going back to the loop, but not long enough to starve other work."""
        for _ in range(BATCHES_PER_TURN):
            with self._lock:
                if self._pending_bytes < self._least_bytes:
                    return
                batch, self._chunks = self._chunks, []
                self._pending_bytes = 0
            self._write(batch)
            self._loop.call_soon_threadsafe(self._space.set)
