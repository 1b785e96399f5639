"""StorageService: save, read and delete a conversation's objects. Spools first, then S3, then the local folder."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from backend.domain.filenames import guess_media_type
from backend.errors import StorageError, StorageMisconfigured
from backend.services.storage.config import StorageConfig
from backend.services.storage.keys import attempt_key, audio_key, metadata_key, transcript_key
from backend.services.storage.placement.info import StorageInfo
from backend.services.storage.placement.parts import StorageParts, open_parts
from backend.services.storage.spool.content import as_json, as_stream
from backend.services.storage.values import (
    Access,
    Expected,
    LocalFile,
    NewObject,
    ObjectKind,
    SpooledFile,
    StoredObject,
)

Content = bytes | Path | AsyncIterable[bytes] | SpooledFile
"""Bytes, a file (copied; it stays the caller's), a stream, or what `spool` gave."""


class StorageService:
    """Keeps recordings, transcripts and metadata; says where each one really is.

    Usable as `async with StorageService(config) as storage:`, or with `start()` and `close()`.

    Args:
        config: default: read from the environment.
        parts: already put together, instead.

    Attributes:
        parts: what it is made of. Only wiring takes these out, to pass each to the services that need it.
    """

    def __init__(self, config: StorageConfig | None = None, *, parts: StorageParts | None = None) -> None:
        self.parts = parts or open_parts(config or StorageConfig())
        self._stores = self.parts.stores
        self._spool = self.parts.spool
        self._retrieval = self.parts.retrieval
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
            self.parts.breaker.open(error)
        await self.parts.disk.run(self.parts.space.look)
        self.parts.status.note_asked()
        self._started = True

    async def close(self) -> None:
        """Stop background work and free connections."""
        await self.parts.breaker.close()
        await self._stores.close()
        self._started = False

    async def check_space(self, bytes_needed: int | None = None, *, promised_bytes: int = 0) -> None:
        """Check that the local disk has space for an upload, before its body is read.

        Args:
            bytes_needed: how much will come, if that is known.
            promised_bytes: how much is still to come of other uploads.

        Raises:
            StorageFull: there is not, or it would go below DISK_HARD_LIMIT_BYTES.
        """
        await self.parts.disk.run(self.parts.space.check, bytes_needed, promised_bytes)

    async def spare_bytes(self) -> int | None:
        """How much uploads may fill of the local disk; None when that cannot be known."""
        return await self.parts.disk.run(self.parts.space.spare)

    @asynccontextmanager
    async def spool(
        self, stream: AsyncIterable[bytes], *, max_bytes: int | None = None, expected_bytes: int | None = None
    ) -> AsyncGenerator[SpooledFile, None]:
        """Receive a stream into a durable temporary file, which lives as long as the context.

        Args:
            stream: the bytes, in chunks of any size.
            max_bytes: the most that may come.
            expected_bytes: how many the sender says will come; there must be space for them.

        Raises:
            TooLarge: while receiving, as soon as the limit is passed.
            StorageFull: no space left; if that is known already, before the stream is read.
            StorageMisconfigured: UPLOAD_DIR cannot be written.
        """
        await self.check_space(expected_bytes)
        async with self._spool.receive(stream, max_bytes=max_bytes, space=self.parts.space) as spooled:
            yield spooled

    async def save_audio_file(
        self,
        file_content: Content,
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
            file_content: see `Content`.
            conversation_id: 1 to 64 letters, digits, `_` or `-`.
            filename: as the client named it; becomes a safe name.
            content_type: default: guessed from the file name.
            metadata: for the object's headers on S3: duration, speaker_count …
            at: the instant whose UTC date is in the key; default: now.
            attempt: from the second on it is part of the key, which sets it apart from what an earlier attempt left.

        Returns:
            Where it is, with a warning when that is not where it should be.

        Raises:
            InvalidInput: a bad id or an unreadable file.
            StorageError: it could not be saved anywhere it may be saved.
        """
        at = at or datetime.now(UTC)
        key = attempt_key(audio_key(conversation_id, filename, at), attempt)
        media = content_type or guess_media_type(key)
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
        keys: Mapping[ObjectKind, str] = {
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
            expected: what the row says of it; only for the whole object.

        Raises:
            ObjectMissing: the store answers and does not have it; at the first step. `get_size` asks beforehand.
            ObjectCorrupt: in place of the last chunk, if these are not the bytes that are expected.
            StorageUnavailable: the store does not answer.
            StorageMisconfigured: the store refuses, or is not configured any more.
        """
        return self._retrieval.open(locator, start, end, expected=expected)

    @asynccontextmanager
    async def as_file(self, locator: str, expected: Expected) -> AsyncGenerator[SpooledFile, None]:
        """An object as a file on this disk, for as long as the context: its own if it has one, else a copy.

        Raises:
            ObjectCorrupt: it is not what is expected.
            StorageError: it cannot be read, or not be copied.
        """
        store = self._stores.get_owner(locator)
        if store.traits.serves_paths:
            found = await store.access(locator, filename="", content_type="", expected=expected)
            if isinstance(found, LocalFile):
                yield SpooledFile(found.path, expected.size_bytes, expected.sha256)
                return
        async with aclosing(self.open(locator, expected=expected)) as chunks, self.spool(chunks) as spooled:
            yield spooled

    def key(self, locator: str) -> str:
        """The key in a locator. Errors as in `open`."""
        return self._stores.get_owner(locator).key(locator)

    async def get_size(self, locator: str) -> int:
        """Return an object's size in bytes. Errors as in `open`."""
        return (await self._stores.get_owner(locator).stat(locator)).size_bytes

    async def delete(self, locator: str) -> None:
        """Delete an object; a missing one is no error. Other errors as in `open`."""
        await self._retrieval.delete(locator)

    async def delete_all(self, store_name: str, conversation_id: str) -> None:
        """Delete all that one store has of a conversation, with and without a row. Errors as in `open`."""
        await self._retrieval.delete_all(store_name, conversation_id)

    async def access(
        self, locator: str, *, filename: str, content_type: str, expected: Expected | None = None
    ) -> Access:
        """Say how a client may be given an object: a file, a URL to be sent to, or a stream.

        Args:
            locator: as a save returned it.
            filename: what the client may call it.
            content_type: sent to the client.
            expected: what the row says of it. With it, a local copy stands in for a store that does not answer.

        Raises:
            ObjectCorrupt: it is not what is expected.
            StorageError: as in `open`.
        """
        return await self._retrieval.access(locator, filename=filename, content_type=content_type, expected=expected)

    async def get_info(self, *, ask: bool = True) -> StorageInfo:
        """Return where saves go now and why. Arguments as in `StorageStatus.get`."""
        return await self.parts.status.get(ask=ask)

    async def _save(
        self, content: Content, kind: ObjectKind, key: str, content_type: str, headers: Mapping[str, object]
    ) -> StoredObject:
        await self.start()
        async with self._spooled(content) as spooled:
            return await self.parts.placement.put(NewObject(spooled, kind, key, content_type, headers))

    @asynccontextmanager
    async def _spooled(self, content: Content) -> AsyncGenerator[SpooledFile, None]:
        if isinstance(content, SpooledFile):
            yield content
        else:
            # Without a look at the space: this belongs to a recording that was accepted already.
            async with self._spool.receive(as_stream(content, self.parts.disk)) as spooled:
                yield spooled


def _headers(conversation_id: str, at: datetime, metadata: Mapping[str, object] | None) -> dict[str, object]:
    return {**(metadata or {}), "conversation_id": conversation_id, "upload_time": at}
