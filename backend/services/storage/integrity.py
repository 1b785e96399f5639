"""Whether an object still is what was saved: `Integrity` for local files, `Proven` for what was hashed, and hashes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

from backend.concurrency.lanes import ThreadLane
from backend.concurrency.rate import RateLimit
from backend.errors import ObjectCorrupt
from backend.services.storage.files import sha256_of_file
from backend.services.storage.port import ObjectStore
from backend.services.storage.values import Expected

ALWAYS_HASHED_BYTES = 64 * 1024 * 1024
REMEMBERED = 4096
INLINE_BYTES = 64 * 1024

_HASHING = ThreadLane("hash-objects", 2)


class Proven:
    """States of objects whose bytes were hashed in this process, the latest few thousand of them."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._hashes: OrderedDict[str, tuple[object, str]] = OrderedDict()
        self._lock = threading.Lock()

    def knows(self, locator: str, state: object, sha256: str) -> bool:
        """Whether the object in this state was found to have this hash."""
        with self._lock:
            return self._hashes.get(locator) == (state, sha256)

    def add(self, locator: str, state: object, sha256: str) -> None:
        """Remember that it has."""
        with self._lock:
            self._hashes[locator] = (state, sha256)
            self._hashes.move_to_end(locator)
            while len(self._hashes) > self._remembered:
                self._hashes.popitem(last=False)


class Integrity:
    """Looks at a local file before it is handed out.

    Its size must be right at every access. It is hashed when size, modification time or inode are not those that were
    hashed last, so also at the first access after a start. A file above 64 MiB is spared that while it has not been
    modified since its row was written: hashing 2 GB would keep a player waiting for seconds after every restart, and
    any change of a file in place, and any replacement, moves its modification time. What escapes that, a disk that
    rots, is what `aperta storage verify --deep` is for.
    """

    def __init__(self, always_hashed_bytes: int = ALWAYS_HASHED_BYTES) -> None:
        self._always_hashed_bytes = always_hashed_bytes
        self._proven = Proven()

    def check(self, path: Path, found: os.stat_result, locator: str, expected: Expected) -> None:
        """Do nothing if the file is what was saved.

        Raises:
            ObjectCorrupt: it is not.
            ObjectMissing: it has just been deleted.
        """
        if found.st_size != expected.size_bytes:
            raise corrupt(locator, f"it has {found.st_size} bytes instead of {expected.size_bytes}")
        state = (found.st_size, found.st_mtime_ns, found.st_ino)
        if self._proven.knows(locator, state, expected.sha256) or self._trusts(found, expected):
            return
        if sha256_of_file(path) != expected.sha256:
            raise corrupt(locator, "its SHA-256 differs")
        self._proven.add(locator, state, expected.sha256)

    def _trusts(self, found: os.stat_result, expected: Expected) -> bool:
        if found.st_size <= self._always_hashed_bytes or expected.saved_at is None:
            return False
        return datetime.fromtimestamp(found.st_mtime, UTC) <= expected.saved_at


async def hashed(chunks: AsyncGenerator[bytes, None], locator: str, expected: Expected) -> AsyncGenerator[bytes, None]:
    """Pass a whole object on. Its last chunk comes only if all of it was what is expected.

    Raises:
        ObjectCorrupt: it was not; in place of the last chunk.
    """
    digest, size_bytes, last = hashlib.sha256(), 0, b""
    async with aclosing(chunks):
        async for chunk in chunks:
            if last:
                yield last
            await _update(digest, chunk)
            size_bytes += len(chunk)
            last = chunk
    if digest.hexdigest() != expected.sha256:
        raise corrupt(locator, f"{size_bytes} bytes came whose SHA-256 differs")
    if last:
        yield last


async def sha256_of(store: ObjectStore, locator: str, pace: RateLimit | None = None) -> str:
    """Return the SHA-256 of an object, read as fast as the pace allows.

    Raises:
        ObjectMissing: there is no such object.
        StorageError: it cannot be read.
    """
    digest = hashlib.sha256()
    async with aclosing(store.open(locator)) as chunks:
        async for chunk in chunks:
            if pace is not None:
                await pace.wait(len(chunk))
            await _update(digest, chunk)
    return digest.hexdigest()


def corrupt(locator: str, why: str) -> ObjectCorrupt:
    """The error for an object that is not what was saved."""
    return ObjectCorrupt(
        f"{locator} is not what was saved: {why}. It is not handed out. `aperta storage verify --deep` shows all such "
        "objects; restore this one from a backup."
    )


async def _update(digest: hashlib._Hash, chunk: bytes) -> None:
    if len(chunk) < INLINE_BYTES:
        digest.update(chunk)  # a hop to a thread would take longer
    else:
        await _HASHING.run(digest.update, chunk)
