"""One recording through the whole pipeline: decode → speech → store audio ∥ transcript ∥ metadata → one commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import repositories
from backend.database.models import Conversation, ConversationStatus, StoredObjectRow
from backend.database.session import Database
from backend.domain.formats import to_text
from backend.domain.transcript import SpeakerCount
from backend.domain.voices import SpeakerIdentity
from backend.engines.base import TranscribeOptions
from backend.errors import (
    AppError,
    Conflict,
    DatabaseUnavailable,
    InvalidInput,
    NotFound,
    ProcessingFailed,
    StorageError,
    TooLarge,
)
from backend.services.metrics import Metrics
from backend.services.people import PeopleService
from backend.services.speech import Channels, SpeechPipeline, SpeechResult, StageProgress, Timings, ignore_progress
from backend.services.storage import SpooledFile, StorageService, StoredObject
from backend.services.storage.keys import safe_filename

logger = logging.getLogger(__name__)

INTERRUPTED = "The server stopped while this recording was processed. Send it again."


@dataclass(frozen=True, slots=True)
class Upload:
    """A received recording. `filename` and `content_type` are the client's words."""

    spooled: SpooledFile
    filename: str
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    title: str | None = None
    transcribe: TranscribeOptions = field(default_factory=TranscribeOptions)
    channels: Channels = Channels.MIX
    speakers: SpeakerCount = field(default_factory=SpeakerCount)


@dataclass(frozen=True, slots=True)
class Processed:
    """What came of a recording; everything in it is stored when this exists."""

    conversation: Conversation
    speech: SpeechResult
    audio: StoredObject
    transcript: StoredObject
    timings: dict[str, float]
    warnings: tuple[str, ...]


class ProcessingService:
    def __init__(
        self,
        storage: StorageService,
        database: Database,
        speech: SpeechPipeline,
        people: PeopleService,
        metrics: Metrics,
    ) -> None:
        self._storage = storage
        self._database = database
        self._speech = speech
        self._people = people
        self._metrics = metrics

    async def process(
        self, upload: Upload, options: ProcessOptions, progress: StageProgress = ignore_progress
    ) -> Processed:
        """Make a stored, attributed transcript of a recording.

        Bad input leaves nothing behind. A recording that is fine but on which an engine breaks is kept: its audio is
        stored and its conversation says `failed` and why.

        Raises:
            InvalidInput: the bytes are no usable recording, or an option makes no sense for the engine.
            TooLarge: longer than MAX_AUDIO_SECONDS.
            StorageError: no store takes the result; no file of it is kept, and its conversation says `failed` and why.
            Conflict: somebody deleted the conversation meanwhile; nothing of it is kept.
            ProcessingFailed: an engine broke.
        """
        try:
            done = await self._process(upload, options, progress)
        except (InvalidInput, TooLarge, Conflict):
            self._metrics.ended("refused")
            raise
        except Exception:
            self._metrics.ended("failed")
            raise
        self._metrics.completed(done.speech.duration_s, done.timings)
        return done

    async def _process(self, upload: Upload, options: ProcessOptions, progress: StageProgress) -> Processed:
        timings = Timings()
        with timings.stage("total"):
            await self._speech.check(options.transcribe)
            with timings.stage("decode"):
                recording = await self._speech.decode(upload.spooled.path, options.channels)
            with recording:
                damaged = recording.damaged_packets
                conversation = await self._begin(upload, options)
                try:
                    speech = await self._speech.run(recording, options.transcribe, options.speakers, timings, progress)
                    speech, identities = await self._people.recognise(speech)
                except InvalidInput:
                    await self._forget(conversation)
                    raise
                except asyncio.CancelledError:
                    await asyncio.shield(self._fail_if_possible(conversation, INTERRUPTED))
                    raise
                except Exception as error:
                    raise await self._keep_failed(conversation, upload, error) from error
            with timings.stage("store"):
                stored = await self._store(conversation, upload, speech)
                await self._complete(conversation, speech, identities, stored)
        progress("store", 1.0)
        warnings = dict.fromkeys(warning for item in stored for warning in item.warnings)
        if damaged:
            warnings[f"{damaged} damaged pieces of the recording were skipped."] = None
        return Processed(conversation, speech, stored[0], stored[1], timings.seconds, tuple(warnings))

    async def recover(self) -> int:
        """Mark as failed what a process that died was working on; returns how many.

        For the one process of a database of its own. A job that another process is in fact working on is marked as
        completed again when it ends.
        """
        async with self._database.transaction() as session:
            return await repositories.fail_processing(session, INTERRUPTED, datetime.now(UTC))

    async def _begin(self, upload: Upload, options: ProcessOptions) -> Conversation:
        conversation = Conversation(
            id=f"conv_{uuid4().hex}",
            title=options.title,
            status=ConversationStatus.PROCESSING,
            filename=safe_filename(upload.filename),
            engines=self._speech.engines,
            created_at=datetime.now(UTC),
        )
        async with self._database.transaction() as session:
            session.add(conversation)
        return conversation

    async def _store(
        self, conversation: Conversation, upload: Upload, speech: SpeechResult
    ) -> tuple[StoredObject, StoredObject, StoredObject]:
        """The three saves side by side. If one fails, what the others saved is deleted again."""
        at, known = conversation.created_at, _metadata(conversation, upload, speech)
        headers = {"duration_s": speech.duration_s, "speaker_count": len(speech.transcript.speakers)}
        results = await asyncio.gather(
            self._storage.save_audio_file(
                upload.spooled,
                conversation.id,
                upload.filename,
                content_type=upload.content_type,
                metadata=headers,
                at=at,
            ),
            self._storage.save_transcript(to_text(speech.transcript), conversation.id, metadata=headers, at=at),
            self._storage.save_metadata(known, conversation.id, filename=upload.filename, at=at),
            return_exceptions=True,
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        saved = [result for result in results if isinstance(result, StoredObject)]
        if errors:
            await self._delete_objects(saved)
            await self._fail(conversation, str(errors[0]))
            raise errors[0]
        return saved[0], saved[1], saved[2]

    async def _complete(
        self,
        conversation: Conversation,
        speech: SpeechResult,
        identities: Mapping[str, SpeakerIdentity],
        stored: tuple[StoredObject, ...],
    ) -> None:
        """One transaction; if the database refuses, the objects go too: no object without a row."""
        conversation.recording_url, conversation.transcript_url = stored[0].locator, stored[1].locator
        conversation.transcript = to_text(speech.transcript)
        conversation.duration_s = round(speech.duration_s, 3)
        conversation.language = speech.transcript.language
        conversation.speaker_count = len(speech.transcript.speakers)
        conversation.engines = speech.engines
        conversation.error = None
        now = datetime.now(UTC)
        rows = [_row(conversation.id, item, now) for item in stored]
        try:
            async with self._database.transaction() as session:
                await _get_undeleted(session, conversation.id)
                merged = await session.merge(conversation)
                await repositories.save_result(
                    session,
                    merged,
                    speech.transcript,
                    speech.stats,
                    rows,
                    identities=identities,
                    completed_at=now,
                )
        except Exception as error:
            await self._delete_objects(stored)
            if not isinstance(error, Conflict):
                await self._fail_if_possible(conversation, f"The result could not be written to the database: {error}")
            raise
        conversation.status, conversation.completed_at = ConversationStatus.COMPLETED, now

    async def _keep_failed(self, conversation: Conversation, upload: Upload, error: Exception) -> AppError:
        """Store the recording although it could not be processed; returns what to raise."""
        logger.error("processing %s failed", conversation.id, exc_info=error)
        reason = str(error) if isinstance(error, AppError) else f"{type(error).__name__}: {error}"
        try:
            audio = await self._storage.save_audio_file(
                upload.spooled,
                conversation.id,
                upload.filename,
                content_type=upload.content_type,
                at=conversation.created_at,
            )
        except StorageError as storage_error:
            await self._fail(conversation, f"{reason} The recording could not be stored either: {storage_error}")
            return storage_error
        try:
            await self._fail(conversation, reason, audio)
        except (Conflict, DatabaseUnavailable) as unwritten:
            await self._delete_objects([audio])
            return unwritten
        return ProcessingFailed(
            f"The recording was stored as {audio.locator}, but could not be processed: {reason}", conversation.id
        )

    async def _fail(self, conversation: Conversation, reason: str, audio: StoredObject | None = None) -> None:
        """Say in the row what went wrong, and where the recording is if it was kept.

        Raises:
            Conflict: the conversation was deleted meanwhile.
        """
        now = datetime.now(UTC)
        async with self._database.transaction() as session:
            row = await _get_undeleted(session, conversation.id)
            row.status, row.error, row.completed_at = ConversationStatus.FAILED, reason, now
            if audio:
                row.recording_url = audio.locator
                session.add(_row(conversation.id, audio, now))

    async def _fail_if_possible(self, conversation: Conversation, reason: str) -> None:
        """`_fail` for when another error is on its way, which must not be replaced."""
        try:
            await self._fail(conversation, reason)
        except (Conflict, DatabaseUnavailable) as error:
            logger.error("%s could not be marked as failed: %s", conversation.id, error)

    async def _forget(self, conversation: Conversation) -> None:
        async with self._database.transaction() as session:
            await session.delete(await repositories.get_conversation(session, conversation.id))

    async def _delete_objects(self, stored: tuple[StoredObject, ...] | list[StoredObject]) -> None:
        for item in stored:
            try:
                await self._storage.delete(item.locator)
            except StorageError:
                logger.exception("%s is left without a row and could not be deleted", item.locator)


async def _get_undeleted(session: AsyncSession, conversation_id: str) -> Conversation:
    """A conversation that was deleted while it was processed stays deleted. Raises Conflict."""
    try:
        return await repositories.get_conversation(session, conversation_id, lock=True)
    except NotFound as error:
        raise Conflict("The conversation was deleted while it was processed.") from error


def _metadata(conversation: Conversation, upload: Upload, speech: SpeechResult) -> dict[str, object]:
    return {
        "conversation_id": conversation.id,
        "title": conversation.title,
        "filename": upload.filename,
        "content_type": upload.content_type,
        "size_bytes": upload.spooled.size_bytes,
        "sha256": upload.spooled.sha256,
        "uploaded_at": conversation.created_at.isoformat(),
        "duration_s": round(speech.duration_s, 3),
        "language": speech.transcript.language,
        "speaker_count": len(speech.transcript.speakers),
        "engines": speech.engines,
        "media": {
            "format": speech.media.format,
            "codec": speech.media.codec,
            "sample_rate_hz": speech.media.sample_rate_hz,
            "channels": speech.media.channels,
        },
    }


def _row(conversation_id: str, item: StoredObject, at: datetime) -> StoredObjectRow:
    return StoredObjectRow(
        conversation_id=conversation_id,
        kind=item.kind,
        store=item.store,
        locator=item.locator,
        size_bytes=item.size_bytes,
        sha256=item.sha256,
        content_type=item.content_type,
        created_at=at,
    )
