"""StorageService: save, read and delete a conversation's objects. Spools first, then S3, then the local folder."""

from __future__ import annotations

import logging
import math
import mimetypes
import time
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

from backend.errors import (
    InvalidInput,
    ObjectExists,
    StorageError,
    StorageFull,
    StorageMisconfigured,
    StorageUnavailable,
)
from backend.services.storage.availability import Availability
from backend.services.storage.base import Kind, LocalFile, ObjectStore, PresignedUrl, SpooledFile, StoredObject
from backend.services.storage.config import StorageConfig
from backend.services.storage.content import as_json, as_stream
from backend.services.storage.info import StorageInfo, storage_info
from backend.services.storage.keys import audio_key, distinct_key, metadata_key, transcript_key
from backend.services.storage.stores import Stores, open_spool, open_stores
from backend.services.storage.threads import ThreadLane

logger = logging.getLogger(__name__)

ASK_AGAIN_AFTER_S = 3.0
_DISK_THREADS = 16
_NAMES_TO_TRY = 8


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
        self._availability = Availability(self._stores.primary, self._config.s3_retry_after_s)
        self._asked_at = -math.inf
        self._started = False

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
            self._availability.failed(error)
        self._asked_at = time.monotonic()
        self._started = True

    async def close(self) -> None:
        """Stop background work and free connections."""
        await self._availability.close()
        for store in self._stores.all:
            await store.close()
        self._started = False

    def spool(
        self, stream: AsyncIterable[bytes], *, max_bytes: int | None = None
    ) -> AbstractAsyncContextManager[SpooledFile]:
        """Receive a stream into a durable temporary file, which lives as long as the context.

        Args:
            stream: the bytes, in chunks of any size.
            max_bytes: the most that may come.

        Raises:
            TooLarge: while receiving, as soon as the limit is passed.
            StorageFull: no space left.
            StorageMisconfigured: UPLOAD_DIR cannot be written.
        """
        return self._spool.receive(stream, max_bytes=max_bytes)

    async def save_audio_file(
        self,
        file_content: bytes | Path | AsyncIterable[bytes] | SpooledFile,
        conversation_id: str,
        filename: str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, object] | None = None,
        at: datetime | None = None,
    ) -> StoredObject:
        """Save a recording under a key that nothing else has.

        Args:
            file_content: bytes, a file (copied; it stays the caller's), a stream, or what `spool` gave.
            conversation_id: 1 to 64 letters, digits, `_` or `-`.
            filename: as the client named it; becomes a safe name.
            content_type: default: guessed from the file name.
            metadata: for the object's headers on S3: duration, speaker_count …
            at: the instant whose UTC date is in the key; default: now.

        Returns:
            Where it is, with a warning when that is not where it should be.

        Raises:
            InvalidInput: a bad id or an unreadable file.
            StorageError: it could not be saved anywhere it may be saved.
        """
        at = at or datetime.now(UTC)
        key = audio_key(conversation_id, filename, at)
        guessed = content_type or mimetypes.guess_type(key)[0] or "application/octet-stream"
        return await self._save(file_content, "audio", key, guessed, _headers(conversation_id, at, metadata))

    async def save_transcript(
        self,
        transcript_text: str,
        conversation_id: str,
        *,
        at: datetime | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> StoredObject:
        """Save a transcript as UTF-8 text. Arguments, result and errors as in `save_audio_file`."""
        at = at or datetime.now(UTC)
        data = transcript_text.encode("utf-8", "replace")
        headers = _headers(conversation_id, at, metadata)
        return await self._save(
            data, "transcript", transcript_key(conversation_id, at), "text/plain; charset=utf-8", headers
        )

    async def save_metadata(
        self,
        metadata: Mapping[str, object],
        conversation_id: str,
        *,
        filename: str = "recording",
        at: datetime | None = None,
    ) -> StoredObject:
        """Save metadata as indented JSON beside the recording of that file name. Result and errors as above."""
        at = at or datetime.now(UTC)
        key = metadata_key(conversation_id, filename, at)
        return await self._save(
            as_json(metadata), "metadata", key, "application/json", _headers(conversation_id, at, None)
        )

    def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream an object: `async for chunk in storage.open(locator)`.

        Args:
            locator: as a save returned it.
            start: first byte.
            end: byte to stop before; default and beyond the end: to the end.

        Raises:
            ObjectMissing: the store answers and does not have it; at the first step. `get_size` asks beforehand.
            StorageUnavailable: the store does not answer.
            StorageMisconfigured: the store refuses, or is not configured any more.
        """
        return self._store_of(locator).open(locator, start, end)

    async def get_size(self, locator: str) -> int:
        """Return an object's size in bytes. Errors as in `open`."""
        return await self._store_of(locator).get_size(locator)

    async def delete(self, locator: str) -> None:
        """Delete an object; one that is already gone is no error. Other errors as in `open`."""
        await self._store_of(locator).delete(locator)

    async def access(self, locator: str, *, filename: str, content_type: str) -> LocalFile | PresignedUrl:
        """Say how a client may be given an object: a file to serve, or a URL to be sent to. Errors as in `open`."""
        return await self._store_of(locator).access(locator, filename=filename, content_type=content_type)

    async def get_info(self, *, ask: bool = True) -> StorageInfo:
        """Return where saves go now and why.

        Args:
            ask: ask the primary store whether it can be used, at most once in a few seconds and no longer than its
                timeouts; False: tell at once what saves and the background questions found.
        """
        if ask and time.monotonic() - self._asked_at > ASK_AGAIN_AFTER_S:
            await self._availability.ask()
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
            return await self._put_somewhere(spooled, kind, key, content_type, headers)

    @asynccontextmanager
    async def _spooled(
        self, content: bytes | Path | AsyncIterable[bytes] | SpooledFile
    ) -> AsyncGenerator[SpooledFile, None]:
        if isinstance(content, SpooledFile):
            yield content
        else:
            async with self.spool(as_stream(content, self._disk)) as spooled:
                yield spooled

    async def _put_somewhere(
        self, spooled: SpooledFile, kind: Kind, key: str, content_type: str, headers: Mapping[str, object]
    ) -> StoredObject:
        primary, fallback = self._stores.primary, self._stores.fallback
        cause = self._availability.error
        if cause is None or fallback is None:
            try:
                return await _put_under_free_name(primary, spooled, kind, key, content_type, headers)
            except StorageError as error:
                self._note(error)
                if fallback is None:
                    raise
                cause = error
        self._availability.keep_watch()
        stored = await _put_under_free_name(fallback, spooled, kind, key, content_type, headers)
        warning = f"{primary.name} could not be used, so this was saved as {stored.locator}. {cause}"
        logger.warning("%s", warning)
        return replace(stored, warnings=(*stored.warnings, warning))

    def _note(self, error: StorageError) -> None:
        # Any other refusal is about this one object; the next may well be taken.
        if isinstance(error, (StorageUnavailable, StorageMisconfigured, StorageFull)):
            self._availability.failed(error)

    def _store_of(self, locator: str) -> ObjectStore:
        for store in self._stores.all:
            if store.owns(locator):
                return store
        if locator.startswith("s3://"):
            why = self._stores.reason or "S3_BUCKET_NAME is not set"
            raise StorageMisconfigured(f"{locator} is in S3, which is not in use: {why}.")
        raise InvalidInput(f"{locator[:200]!r} belongs to no store.")

    def _present_info(self) -> StorageInfo:
        error, primary = self._availability.error, self._stores.primary
        falls_back = error is not None and self._stores.fallback is not None
        used = self._stores.fallback if falls_back and self._stores.fallback else primary
        is_s3 = primary.name == "s3"
        return storage_info(
            self._config,
            storage_type=used.name,
            s3_enabled=is_s3 and error is None,
            reason=str(error) if error else self._stores.reason,
        )


async def _put_under_free_name(
    store: ObjectStore, spooled: SpooledFile, kind: Kind, key: str, content_type: str, headers: Mapping[str, object]
) -> StoredObject:
    """Objects are write-once, so a taken name gets a token added rather than an error to the caller."""
    name = key
    for _ in range(_NAMES_TO_TRY):
        try:
            return await store.put(spooled, kind=kind, key=name, content_type=content_type, metadata=headers)
        except ObjectExists:
            name = distinct_key(key, uuid4().hex[:6])
    raise StorageError(f"No free name found for {key}.")


def _headers(conversation_id: str, at: datetime, metadata: Mapping[str, object] | None) -> dict[str, object]:
    return {**(metadata or {}), "conversation_id": conversation_id, "upload_time": at}
