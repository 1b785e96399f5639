"""The stored objects of one job's conversation: audio, transcript, manifest. They are saved under names that bear the
attempt, and deleted again if no row names them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.database import objects
from backend.database.models import Conversation, Job
from backend.database.session import Database
from backend.domain.manifest import manifest_of
from backend.domain.rendering.formats import to_text
from backend.domain.transcript import Coverage
from backend.domain.voices import SpeakerIdentity
from backend.errors import StorageError
from backend.services.speech.values import SpeechResult
from backend.services.storage import SpooledFile, StorageService, StoredObject

logger = logging.getLogger(__name__)

PLACES_NAMED = 5


@dataclass(frozen=True, slots=True)
class Attributed:
    """What was said, by whom, and when that was known."""

    speech: SpeechResult
    identities: dict[str, SpeakerIdentity]
    completed_at: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """The objects of a conversation: audio, transcript, manifest."""

    objects: tuple[StoredObject, ...]

    def __getitem__(self, kind: str) -> StoredObject:
        return next(item for item in self.objects if item.kind == kind)


class ResultObjects:
    def __init__(self, storage: StorageService, database: Database) -> None:
        self._storage = storage
        self._database = database

    async def save(self, job: Job, conversation: Conversation, recording: SpooledFile, heard: Attributed) -> Stored:
        """Audio and transcript side by side, and the manifest, which names both, as soon as they are there.

        If one save fails, what the others saved is deleted again.
        """
        speech, at, attempt = heard.speech, conversation.created_at, job.attempt
        headers = {"duration_s": speech.duration_s, "speaker_count": len(speech.transcript.speakers)}
        await self._delete_earlier_attempts(job, at)

        async def save_audio() -> StoredObject:
            return await self._save_audio(job, recording, headers, at)

        audio = asyncio.ensure_future(save_audio())
        transcript = asyncio.ensure_future(
            self._storage.save_transcript(
                to_text(speech.transcript), conversation.id, metadata=headers, at=at, attempt=attempt
            )
        )

        async def save_manifest() -> StoredObject:
            document = _manifest(conversation, heard, await asyncio.gather(audio, transcript))
            return await self._storage.save_metadata(
                document, conversation.id, filename=job.filename, at=at, attempt=attempt
            )

        results = await asyncio.gather(audio, transcript, save_manifest(), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        saved = tuple(result for result in results if isinstance(result, StoredObject))
        if errors:
            await self.delete_unnamed(job, saved)
            raise errors[0]
        return Stored(saved)

    async def _save_audio(
        self, job: Job, recording: SpooledFile, headers: Mapping[str, object] | None, at: datetime
    ) -> StoredObject:
        """The recording's object: the one it already has if it was stored on arrival or by an attempt that failed."""
        async with self._database.transaction() as session:
            found = await objects.find_audio(session, job.conversation_id)
        if found:
            return objects.stored_of(found, self._storage.key(found.locator))
        return await self._storage.save_audio_file(
            recording,
            job.conversation_id,
            job.filename,
            content_type=job.content_type,
            metadata=headers,
            at=at,
            attempt=job.attempt,
        )

    async def save_failed(
        self, job: Job, conversation: Conversation, recording: SpooledFile, reason: str, now: datetime
    ) -> tuple[StoredObject, ...]:
        """Store a recording that could not be processed, and its manifest.

        Returns:
            Recording and manifest; nothing if no store takes them: the recording stays in the spool then.
        """
        saved: list[StoredObject] = []
        try:
            saved.append(await self._save_audio(job, recording, None, conversation.created_at))
            document = manifest_of(conversation, saved, status="failed", completed_at=now, error=reason)
            saved.append(
                await self._storage.save_metadata(
                    document, conversation.id, filename=job.filename, at=conversation.created_at, attempt=job.attempt
                )
            )
        except StorageError as error:
            logger.error("the recording of job %s stays in the spool: %s", job.id, error)
            await self.delete_unnamed(job, saved)
            return ()
        return tuple(saved)

    async def _delete_earlier_attempts(self, job: Job, at: datetime) -> None:
        """What attempts left whose process died between saving and noting that they had saved."""
        async with self._database.transaction() as session:
            keep = await objects.locators_of(session, job.conversation_id)
        for attempt in range(1, job.attempt):
            try:
                await self._storage.delete_attempt(job.conversation_id, job.filename, at, attempt, keep)
            except StorageError as error:
                logger.warning("what attempt %d of job %s left could not be deleted: %s", attempt, job.id, error)

    async def delete_unnamed(self, job: Job, stored: Sequence[StoredObject]) -> None:
        """Delete what was saved, but for what rows name: the recording may have been stored on arrival.

        Raises:
            DatabaseUnavailable: then nothing is deleted.
        """
        async with self._database.transaction() as session:
            named = await objects.locators_of(session, job.conversation_id)
        await self.delete([item.locator for item in stored if item.locator not in named])

    async def delete(self, locators: Sequence[str]) -> None:
        for locator in locators:
            try:
                await self._storage.delete(locator)
            except StorageError:
                logger.exception("%s is left without a row and could not be deleted", locator)


def warnings_of(speech: SpeechResult, objects: Sequence[StoredObject]) -> list[str]:
    """What did not go as configured, each cause once.

    Nothing of the manifest: it cannot tell of itself, and rows that are rebuilt from it are to be the same.
    """
    found = dict.fromkeys(warning for item in objects if item.kind != "metadata" for warning in item.warnings)
    found |= dict.fromkeys(speech.warnings)
    found |= dict.fromkeys(loss.sentence for loss in speech.losses)
    return list(found | dict.fromkeys(_coverage_warnings(speech.coverage)))


def _coverage_warnings(coverage: Coverage) -> list[str]:
    if not coverage.without_words_s:
        return []
    places = ", ".join(f"{start_s:.1f} to {end_s:.1f} s" for start_s, end_s in coverage.without_words[:PLACES_NAMED])
    more = len(coverage.without_words) - PLACES_NAMED
    return [
        f"{coverage.without_words_s:.1f} of {coverage.speech_s:.1f} s of speech have no words in the transcript: "
        f"{places}{f' and {more} more stretches' if more > 0 else ''}."
    ]


def _manifest(conversation: Conversation, heard: Attributed, objects: Sequence[StoredObject]) -> dict[str, object]:
    speech = heard.speech
    media: Mapping[str, str | int | float | None] = {
        "format": speech.media.format,
        "codec": speech.media.codec,
        "sample_rate_hz": speech.media.sample_rate_hz,
        "channels": speech.media.channels,
    }
    return manifest_of(
        conversation,
        objects,
        status="completed",
        completed_at=heard.completed_at,
        transcript=speech.transcript,
        stats=speech.stats,
        identities=heard.identities,
        duration_s=speech.duration_s,
        engines=speech.engines,
        media=media,
        warnings=tuple(warnings_of(speech, objects)),
        error=None,
    )
