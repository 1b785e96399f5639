"""What is done with one accepted recording: speech → store audio ∥ transcript ∥ manifest → one commit.

Knows no queue: the runner calls `process` with steps that are checkpointed, so a job that continues in another process
repeats nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from backend.concurrency.waiting import until_available
from backend.database import conversations, jobs, objects, transcripts
from backend.database.models import Conversation, Job
from backend.database.session import Database
from backend.domain.formats import to_text
from backend.domain.job_states import JobStatus
from backend.domain.jobs import Superseded, error_to_json
from backend.domain.manifest import manifest_of
from backend.domain.states.conversations import ConversationStatus
from backend.domain.voices import SpeakerIdentity, named_speakers, show_labels
from backend.errors import AppError, InvalidInput, NotFound, ProcessingFailed, StorageError, TooLarge
from backend.observability.metrics import Metrics
from backend.services.people.service import PeopleService
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.speech.steps import Steps
from backend.services.speech.values import SpeechOptions, SpeechResult
from backend.services.storage import SpooledFile, StorageService, StoredObject

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """What the caller wants of a recording."""

    title: str | None = None
    speech: SpeechOptions = field(default_factory=SpeechOptions)


OPTIONS = TypeAdapter(ProcessOptions)


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

    async def process(self, job: Job, recording: SpooledFile, steps: Steps) -> None:
        """Make a stored, attributed transcript of a job's recording.

        Every step may be run again by a later attempt: stored objects are named after the attempt, and the commit is
        refused to an attempt that is not the job's any more.

        Raises:
            InvalidInput: the bytes are no usable recording, or an option makes no sense for the engine.
            TooLarge: longer than MAX_AUDIO_SECONDS.
            StorageError: no store takes the result.
            DatabaseUnavailable: the result could not be written.
            Superseded: see there.
            ProcessingFailed, EngineUnavailable: an engine broke.
        """
        options = OPTIONS.validate_python(job.options)
        conversation = await self._get_conversation(job)
        heard = await self._hear(recording, options, steps)

        saved: list[StoredObject] = []

        async def store() -> Stored:
            stored = await self._store(job, conversation, recording, heard)
            saved.extend(stored.objects)
            return stored

        try:
            stored = await steps.run("store", store, Stored)
        except Superseded:  # no checkpoint names what was saved, so no other attempt will use it
            await self._delete_unnamed(job, saved)
            raise

        try:
            await until_available(lambda: self._commit(job, heard, stored, steps), steps.check)
        except Superseded:
            await self._clean_up_after_cancellation(job, stored)
            raise
        except Exception:
            await self._delete_unnamed(job, stored.objects)
            raise
        # From here on the job is over: nothing may ask whether it is still wanted.
        self._metrics.completed(heard.speech.duration_s, steps.timings_s)

    async def fail(self, job: Job, recording: SpooledFile | None, error: Exception) -> None:
        """Write how a job ended that cannot be completed.

        A recording that is no usable input leaves nothing but the job behind. One that an engine broke on is kept: it
        is stored, its conversation says `failed` and why, and it may be tried again.

        Raises:
            Superseded: see there.
            DatabaseUnavailable
        """
        refused = isinstance(error, InvalidInput | TooLarge)
        self._metrics.ended("refused" if refused else "failed")
        if refused:
            await self._refuse(job, error)
            return
        logger.error("job %s: processing %s failed", job.id, job.conversation_id, exc_info=error)
        reason = str(error) if isinstance(error, AppError) else f"{type(error).__name__}: {error}"
        # Where the result could not be stored, the recording waits in the spool for another try.
        storable = recording is not None and not isinstance(error, StorageError)
        now = datetime.now(UTC)
        kept = await self._keep(job, recording, reason, now) if recording and storable else ()
        if not kept:
            await self._end_failed(job, reason, error, now)
            return
        told = ProcessingFailed(
            f"The recording was stored as {kept[0].locator}, but could not be processed: {reason}", job.conversation_id
        )
        try:
            await self._end_failed(job, reason, told, now, kept)
        except BaseException:
            await self._delete_unnamed(job, kept)
            raise

    async def _hear(self, recording: SpooledFile, options: ProcessOptions, steps: Steps) -> Attributed:
        output = await self._speech.hear(recording.path, options.speech, steps)

        async def attribute() -> Attributed:
            named, identities = await self._people.recognise(await self._speech.attribute(output))
            return Attributed(named, dict(identities), datetime.now(UTC))

        return await steps.run("attribute", attribute, Attributed)

    async def _store(self, job: Job, conversation: Conversation, recording: SpooledFile, heard: Attributed) -> Stored:
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
            await self._delete_unnamed(job, saved)
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

    async def _commit(self, job: Job, heard: Attributed, stored: Stored, steps: Steps) -> None:
        """One transaction, which only the attempt that the job's row names can make."""
        speech, at = heard.speech, heard.completed_at
        warnings = _warnings(speech, stored.objects)
        result = {"timings_s": steps.timings_s}
        done = {"status": JobStatus.COMPLETED, "progress": 1.0, "stage": None, "worker_id": None, "recording": None}
        async with self._database.transaction() as session:
            values = {**done, "result": result, "error": None, "finished_at": datetime.now(UTC)}
            if not await jobs.update_attempt(session, job.id, job.attempt, values):
                raise Superseded(f"Another attempt has job {job.id}.")
            row = await _get_conversation(session, job.conversation_id)
            row.recording_url, row.transcript_url = stored["audio"].locator, stored["transcript"].locator
            row.status, row.completed_at = ConversationStatus.COMPLETED, at
            row.duration_s = round(speech.duration_s, 3)
            row.engines, row.warnings, row.error = speech.engines, warnings or None, None
            replaced = await objects.replace_objects(session, row.id, stored.objects, at)
            speakers = named_speakers(speech.stats, heard.identities)
            said = show_labels(speech.transcript, speakers)
            await transcripts.write(session, row, said, speakers, heard.identities.values())
        # What an earlier attempt that failed had left: its manifest.
        await self._delete_locators(replaced)

    async def _clean_up_after_cancellation(self, job: Job, stored: Stored) -> None:
        """What was saved for a conversation that nobody wants any more. Another attempt's objects may be the same."""
        async with self._database.transaction() as session:
            row = await jobs.get_job(session, job.id)
            gone = await conversations.find_conversation(session, job.conversation_id) is None
        if gone or row.status == JobStatus.CANCELLED:
            await self._delete_locators([item.locator for item in stored.objects])

    async def _refuse(self, job: Job, error: Exception) -> None:
        """Bad input leaves nothing but the job's row, which says why."""
        async with self._database.transaction() as session:
            if not await jobs.update_attempt(session, job.id, job.attempt, _failed(error) | {"recording": None}):
                raise Superseded(f"Another attempt has job {job.id}.")
            locators = await objects.locators_of(session, job.conversation_id)
            await conversations.remove(session, await _get_conversation(session, job.conversation_id))
        await self._delete_locators(locators)

    async def _keep(self, job: Job, recording: SpooledFile, reason: str, now: datetime) -> tuple[StoredObject, ...]:
        """Store a recording that could not be processed, and its manifest.

        Returns:
            Recording and manifest; nothing if no store takes them: the recording stays in the spool then.
        """
        conversation = await self._get_conversation(job)
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
            await self._delete_unnamed(job, saved)
            return ()
        return tuple(saved)

    async def _end_failed(
        self, job: Job, reason: str, error: Exception, now: datetime, kept: Sequence[StoredObject] = ()
    ) -> None:
        values = _failed(error) | ({"recording": kept[0].locator} if kept else {})
        async with self._database.transaction() as session:
            if not await jobs.update_attempt(session, job.id, job.attempt, values):
                raise Superseded(f"Another attempt has job {job.id}.")
            row = await _get_conversation(session, job.conversation_id)
            row.status, row.error, row.completed_at = ConversationStatus.FAILED, reason, now
            row.recording_url = kept[0].locator if kept else row.recording_url
            await objects.add_objects(session, row.id, kept, now)

    async def _get_conversation(self, job: Job) -> Conversation:
        async with self._database.transaction() as session:
            return await _get_conversation(session, job.conversation_id)

    async def _delete_earlier_attempts(self, job: Job, at: datetime) -> None:
        """What attempts left whose process died between saving and noting that they had saved."""
        async with self._database.transaction() as session:
            keep = await objects.locators_of(session, job.conversation_id)
        for attempt in range(1, job.attempt):
            try:
                await self._storage.delete_attempt(job.conversation_id, job.filename, at, attempt, keep)
            except StorageError as error:
                logger.warning("what attempt %d of job %s left could not be deleted: %s", attempt, job.id, error)

    async def _delete_unnamed(self, job: Job, stored: Sequence[StoredObject]) -> None:
        """Delete what was saved, but for what rows name: the recording may have been stored on arrival.

        Raises:
            DatabaseUnavailable: then nothing is deleted.
        """
        async with self._database.transaction() as session:
            named = await objects.locators_of(session, job.conversation_id)
        await self._delete_locators([item.locator for item in stored if item.locator not in named])

    async def _delete_locators(self, locators: Collection[str]) -> None:
        for locator in locators:
            try:
                await self._storage.delete(locator)
            except StorageError:
                logger.exception("%s is left without a row and could not be deleted", locator)


async def _get_conversation(session: AsyncSession, conversation_id: str) -> Conversation:
    """A conversation that was deleted while it was processed stays deleted."""
    try:
        return await conversations.get_conversation(session, conversation_id, lock=True)
    except NotFound as error:
        raise Superseded("The conversation was deleted while it was processed.") from error


def _failed(error: Exception) -> dict[str, object]:
    return {
        "status": JobStatus.FAILED,
        "error": error_to_json(error),
        "worker_id": None,
        "finished_at": datetime.now(UTC),
    }


def _warnings(speech: SpeechResult, objects: Sequence[StoredObject]) -> list[str]:
    """What did not go as configured, each cause once.

    Nothing of the manifest: it cannot tell of itself, and rows that are rebuilt from it are to be the same.
    """
    found = dict.fromkeys(warning for item in objects if item.kind != "metadata" for warning in item.warnings)
    if speech.damaged_packets:
        found[f"{speech.damaged_packets} damaged pieces of the recording were skipped."] = None
    return list(found)


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
        warnings=tuple(_warnings(speech, objects)),
        error=None,
    )
