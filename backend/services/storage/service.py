"""StorageService: save, read and delete a conversation's objects. Spools first, then S3, then the local folder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import anyio

from backend.concurrency.lanes import ThreadLane
from backend.domain.filenames import media_type
from backend.errors import InvalidInput, StorageError, StorageMisconfigured, StorageUnavailable
from backend.services.storage.config import StorageConfig
from backend.services.storage.integrity import hashed
from backend.services.storage.keys import attempt_key, audio_key, metadata_key, transcript_key
from backend.services.storage.placement.breaker import Breaker
from backend.services.storage.placement.info import StorageInfo, storage_info
from backend.services.storage.placement.metrics import StorageFigures
from backend.services.storage.placement.mover import Mover
from backend.services.storage.placement.placement import Placement
from backend.services.storage.placement.stores import Stores, open_spool, open_stores
from backend.services.storage.port import ObjectStore
from backend.services.storage.spool.accepted import KeptRecordings
from backend.services.storage.spool.content import as_json, as_stream
from backend.services.storage.spool.resumable import GrowingFiles
from backend.services.storage.spool.space import Room
from backend.services.storage.spool.temporary import Spool
from backend.services.storage.values import Expected, Kind, LocalFile, PresignedUrl, SpooledFile, StoredObject

logger = logging.getLogger(__name__)

ASK_AGAIN_AFTER_S, WAIT_FOR_ANSWER_S = 3.0, 2.0
_DISK_THREADS = 16


class StorageService:
    """Keeps recordings, transcripts and metadata; says where each one really is.

    Usable as `async with StorageService(config) as storage:`, or with `start()` and `close()`.

    Args:
        config: default: read from the environment.
        primary: a store to use instead of the configured ones.
        fallback: what takes over when `primary` fails; only together with `primary`.
    """

    def __init__(
        self,
        config: StorageConfig | None = None,
        *,
        primary: ObjectStore | None = None,
        fallback: ObjectStore | None = None,
    ) -> None:
        self._config = config or StorageConfig()
        self._disk = ThreadLane("disk", _DISK_THREADS)
        self._stores = Stores(primary, fallback) if primary else open_stores(self._config, self._disk)
        self._spool = open_spool(self._config, self._disk)
        self.kept = KeptRecordings(Path(self._config.upload_dir), self._disk)
        self.growing = GrowingFiles(Path(self._config.upload_dir), self._disk)
        self.direct = self._stores.direct
        patience_s = self._config.s3_connect_timeout_s + self._config.s3_read_timeout_s
        self.breaker = Breaker(self._stores.primary, retry_after_s=self._config.s3_retry_after_s, patience_s=patience_s)
        self.room = Room(
            Path(self._config.upload_dir),
            soft_bytes=self._config.disk_soft_limit_bytes,
            hard_bytes=self._config.disk_hard_limit_bytes,
        )
        self._placement = Placement(self._stores, self.breaker, self._config.s3_save_timeout_s)
        self.figures = StorageFigures(self._stores.primary.name, self.breaker, self.room, self._placement, self._config)
        self.mover = Mover(self._stores, self.breaker, self._disk)
        self._asked_at = -math.inf
        self._started = False

    @property
    def stores(self) -> tuple[ObjectStore, ...]:
        """Every store that objects may be in, the primary first."""
        return self._stores.all

    @property
    def spool_files(self) -> Spool:
        """The files of uploads in progress, and those that were left behind."""
        return self._spool

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Create the folders, sweep the spool and ask the primary store whether it can be used.

        Raises:
            StorageMisconfigured: UPLOAD_DIR cannot be written, or S3 cannot be used and FALLBACK is off.
        """
        if self._started:
            return
        await self._spool.start()
        try:
            await self._stores.primary.check()
        except StorageError as error:
            if self._stores.fallback is None and isinstance(error, StorageMisconfigured):
                raise
            self.breaker.open(error)
        await self._disk.run(self.room.look)
        self._asked_at = time.monotonic()
        self._started = True

    async def close(self) -> None:
        """Stop background work and free connections."""
        await self.breaker.close()
        for store in (*self._stores.all, self.direct):
            if store is not None:
                await store.close()
        self._started = False

    async def check_room(self, bytes_needed: int | None = None) -> None:
        """Do nothing if there is room on the local disk for an upload. To be called before its body is read.

        Args:
            bytes_needed: how much will come, if that is known.

        Raises:
            StorageFull: there is not, or it would go below DISK_HARD_LIMIT_BYTES.
        """
        await self._disk.run(self.room.check, bytes_needed)

    @asynccontextmanager
    async def spool(
        self, stream: AsyncIterable[bytes], *, max_bytes: int | None = None, expected_bytes: int | None = None
    ) -> AsyncGenerator[SpooledFile, None]:
        """Receive a stream into a durable temporary file, which lives as long as the context.

        Args:
            stream: the bytes, in chunks of any size.
            max_bytes: the most that may come.
            expected_bytes: how many the sender says will come; there must be room for them.

        Raises:
            TooLarge: while receiving, as soon as the limit is passed.
            StorageFull: no space left; if that is known already, before the stream is read.
            StorageMisconfigured: UPLOAD_DIR cannot be written.
        """
        await self.check_room(expected_bytes)
        async with self._spool.receive(stream, max_bytes=max_bytes, room=self.room) as spooled:
            yield spooled

    async def save_audio_file(
        self,
        file_content: bytes | Path | AsyncIterable[bytes] | SpooledFile,
        conversation_id: str,
        filename: str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, object] | None = None,
        at: datetime | None = None,
        attempt: int = 1,
    ) -> StoredObject:
        """Save a recording under a key that nothing else has.

        Args:
            file_content: bytes, a file (copied; it stays the caller's), a stream, or what `spool` gave.
            conversation_id: 1 to 64 letters, digits, `_` or `-`.
            filename: as the client named it; becomes a safe name.
            content_type: default: guessed from the file name.
            metadata: for the object's headers on S3: duration, speaker_count …
            at: the instant whose UTC date is in the key; default: now.
            attempt: from the second on it is part of the key, so that what an earlier attempt left can be told apart.

        Returns:
            Where it is, with a warning when that is not where it should be.

        Raises:
            InvalidInput: a bad id or an unreadable file.
            StorageError: it could not be saved anywhere it may be saved.
        """
        at = at or datetime.now(UTC)
        key = attempt_key(audio_key(conversation_id, filename, at), attempt)
        media = content_type or media_type(key)
        return await self._save(file_content, "audio", key, media, _headers(conversation_id, at, metadata))

    async def save_transcript(
        self,
        transcript_text: str,
        conversation_id: str,
        *,
        at: datetime | None = None,
        metadata: Mapping[str, object] | None = None,
        attempt: int = 1,
    ) -> StoredObject:
        """Save a transcript as UTF-8 text. Arguments, result and errors as in `save_audio_file`."""
        at = at or datetime.now(UTC)
        data = transcript_text.encode("utf-8", "replace")
        headers = _headers(conversation_id, at, metadata)
        key = attempt_key(transcript_key(conversation_id, at), attempt)
        return await self._save(data, "transcript", key, "text/plain; charset=utf-8", headers)

    async def save_metadata(
        self,
        metadata: Mapping[str, object],
        conversation_id: str,
        *,
        filename: str = "recording",
        at: datetime | None = None,
        attempt: int = 1,
    ) -> StoredObject:
        """Save metadata as indented JSON beside the recording of that file name. Result and errors as above."""
        at = at or datetime.now(UTC)
        key = attempt_key(metadata_key(conversation_id, filename, at), attempt)
        return await self._save(
            as_json(metadata), "metadata", key, "application/json", _headers(conversation_id, at, None)
        )

    async def delete_attempt(
        self, conversation_id: str, filename: str, at: datetime, attempt: int, keep: Collection[str]
    ) -> None:
        """Delete what an attempt whose process died may have saved.

        Args:
            conversation_id, filename, at, attempt: as given to its saves.
            keep: locators that rows point to.

        Raises:
            StorageError: a store could not be asked.
        """
        keys: Mapping[Kind, str] = {
            "audio": audio_key(conversation_id, filename, at),
            "transcript": transcript_key(conversation_id, at),
            "metadata": metadata_key(conversation_id, filename, at),
        }
        for store in (self._stores.primary, self._stores.fallback):
            if store is None:
                continue
            for kind, key in keys.items():
                locator = store.locator(kind, attempt_key(key, attempt))
                if locator not in keep:
                    await store.delete(locator)

    def open(
        self, locator: str, start: int = 0, end: int | None = None, *, expected: Expected | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Stream an object: `async for chunk in storage.open(locator)`.

        Args:
            locator: as a save returned it.
            start: first byte.
            end: byte to stop before; default and beyond the end: to the end.
            expected: what the row says of it; only for all of it.

        Raises:
            ObjectMissing: the store answers and does not have it; at the first step. `get_size` asks beforehand.
            ObjectCorrupt: at the end, if these were not the bytes that are expected.
            StorageUnavailable: the store does not answer.
            StorageMisconfigured: the store refuses, or is not configured any more.
        """
        chunks = self._store_of(locator).open(locator, start, end)
        return chunks if expected is None else hashed(chunks, locator, expected, self._disk)

    def store_of(self, locator: str) -> ObjectStore:
        """The store that a locator leads into.

        Raises:
            StorageMisconfigured: it is not in use.
            InvalidInput: there is no such store.
        """
        return self._store_of(locator)

    def key(self, locator: str) -> str:
        """The key in a locator. Errors as in `open`."""
        return self._store_of(locator).key(locator)

    async def get_size(self, locator: str) -> int:
        """Return an object's size in bytes. Errors as in `open`."""
        return await self._store_of(locator).get_size(locator)

    async def delete(self, locator: str) -> None:
        """Delete an object; one that is already gone is no error. Other errors as in `open`."""
        store = self._store_of(locator)
        self._refuse_to_wait_for(store)
        await store.delete(locator)

    @property
    def store_names(self) -> tuple[str, ...]:
        """The stores that may have objects."""
        return tuple(store.name for store in self._stores.all)

    async def delete_all(self, store_name: str, conversation_id: str) -> None:
        """Delete whatever one store has of a conversation, whether or not a row knows of it. Errors as in `open`."""
        store = next(store for store in self._stores.all if store.name == store_name)
        self._refuse_to_wait_for(store)
        for item in [item async for item in store.iterate(conversation_id=conversation_id)]:
            await store.delete(item.locator)

    async def access(
        self, locator: str, *, filename: str, content_type: str, expected: Expected | None = None
    ) -> LocalFile | PresignedUrl:
        """Say how a client may be given an object: a file to serve, or a URL to be sent to.

        Args:
            expected: what the row says of it. With it, a local copy stands in for a store that does not answer.

        Raises:
            ObjectCorrupt: it is not what is expected.
            StorageError: as in `open`.
        """
        store = self._store_of(locator)
        try:
            self._refuse_to_wait_for(store)
            return await store.access(locator, filename=filename, content_type=content_type, expected=expected)
        except (StorageUnavailable, StorageMisconfigured):
            found = await self._find_local_copy(locator, expected) if expected and store.name != "local" else None
            if found is None:
                raise
            logger.warning("%s cannot be reached; its local copy is served", locator)
            return found

    async def get_info(self, *, ask: bool = True) -> StorageInfo:
        """Return where saves go now and why.

        Args:
            ask: ask the primary store whether it can be used, at most once in a few seconds. Of a store that does not
                answer soon, tell what is known; the question goes on. False: tell at once what saves and the background
                questions found.
        """
        if ask and time.monotonic() - self._asked_at > ASK_AGAIN_AFTER_S:
            with anyio.move_on_after(WAIT_FOR_ANSWER_S):
                await self.breaker.ask()
            self._asked_at = time.monotonic()
        return await self._disk.run(self._present_info)

    async def _save(
        self,
        content: bytes | Path | AsyncIterable[bytes] | SpooledFile,
        kind: Kind,
        key: str,
        content_type: str,
        headers: Mapping[str, object],
    ) -> StoredObject:
        await self.start()
        async with self._spooled(content) as spooled:
            return await self._placement.put(spooled, kind, key, content_type, headers)

    @asynccontextmanager
    async def _spooled(
        self, content: bytes | Path | AsyncIterable[bytes] | SpooledFile
    ) -> AsyncGenerator[SpooledFile, None]:
        if isinstance(content, SpooledFile):
            yield content
        else:
            # Without a look at the room: this belongs to a recording that was accepted already.
            async with self._spool.receive(as_stream(content, self._disk)) as spooled:
                yield spooled

    def _refuse_to_wait_for(self, store: ObjectStore) -> None:
        """A primary that is known to be silent is not asked: each reader would wait for its timeouts."""
        error = self.breaker.error
        if store is self._stores.primary and isinstance(error, StorageUnavailable) and not error.answered:
            raise StorageUnavailable(str(error), answered=False)

    async def _find_local_copy(self, locator: str, expected: Expected) -> LocalFile | None:
        """The file of the same key, if it has the same bytes: what is left of a drain, or waits for one."""
        key = self._store_of(locator).key(locator)
        for store in self._stores.all:
            if store.name != "local":
                continue
            try:
                found = await store.access(store.locator("audio", key), filename="", content_type="", expected=expected)
            except StorageError:
                continue
            return found if isinstance(found, LocalFile) else None
        return None

    def _store_of(self, locator: str) -> ObjectStore:
        for store in self._stores.all:
            if store.owns(locator):
                return store
        if locator.startswith("s3://"):
            why = self._stores.reason or "S3_BUCKET_NAME is not set"
            raise StorageMisconfigured(f"{locator} is in S3, which is not in use: {why}.")
        raise InvalidInput(f"{locator[:200]!r} belongs to no store.")

    def _present_info(self) -> StorageInfo:
        error, primary = self.breaker.error, self._stores.primary
        falls_back = error is not None and self._stores.fallback is not None
        used = self._stores.fallback if falls_back and self._stores.fallback else primary
        is_s3 = primary.name == "s3"
        self.room.look()
        return storage_info(
            self._config,
            storage_type=used.name,
            s3_enabled=is_s3 and error is None,
            reason=str(error) if error else self._stores.reason,
            breaker=self.breaker.view(),
            room=self.room,
        )


def _headers(conversation_id: str, at: datetime, metadata: Mapping[str, object] | None) -> dict[str, object]:
    return {**(metadata or {}), "conversation_id": conversation_id, "upload_time": at}
