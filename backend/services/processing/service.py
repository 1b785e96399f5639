"""What is done with one accepted recording: speech → store audio ∥ transcript ∥ manifest → one commit.

Knows no queue: a job's attempt calls `process` with steps that are checkpointed, so a job that continues in another
process repeats nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import TypeAdapter

from backend.concurrency.waiting import until_available
from backend.database.models import Conversation, Job
from backend.database.session import Database
from backend.domain.jobs import Superseded
from backend.errors import AppError, InvalidInput, ProcessingFailed, StorageError, TooLarge
from backend.observability.metrics import Metrics
from backend.services.people.service import PeopleService
from backend.services.processing.objects import Attributed, ResultObjects, Stored
from backend.services.processing.rows import ResultRows
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.speech.steps import Steps
from backend.services.speech.values import SpeechOptions
from backend.services.storage import SpooledFile, StorageService, StoredObject

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """What the caller wants of a recording."""

    title: str | None = None
    speech: SpeechOptions = field(default_factory=SpeechOptions)


OPTIONS = TypeAdapter(ProcessOptions)


class ProcessingService:
    def __init__(
        self,
        storage: StorageService,
        database: Database,
        speech: SpeechPipeline,
        people: PeopleService,
        metrics: Metrics,
    ) -> None:
        self._objects = ResultObjects(storage, database)
        self._rows = ResultRows(database)
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
        conversation = await self._rows.get_conversation(job)
        heard = await self._hear(job, recording, steps)
        stored = await self._store(job, conversation, recording, heard, steps)
        await self._commit(job, heard, stored, steps)
        # From here on the job is over: nothing may ask whether it is still wanted.
        self._metrics.completed(
            heard.speech.duration_s,
            steps.timings_s,
            heard.speech.coverage.speech_s,
            heard.speech.coverage.without_words_s,
        )

    async def fail(
        self, job: Job, recording: SpooledFile | None, error: Exception, check: Callable[[], None]
    ) -> str | None:
        """Write how a job ended that cannot be completed, even if the database is away for long.

        A recording that is no usable input leaves nothing but the job behind. One that an engine broke on is kept: it
        is stored, its conversation says `failed` and why, and it may be tried again.

        Args:
            job: whose attempt failed.
            recording: if it could be read.
            error: why it failed.
            check: called before each try to write; may raise, to give up.

        Returns:
            Where the recording is kept: a locator, or the job's id if it stays in the spool; None if nowhere.

        Raises:
            Superseded: see there.
        """
        refused = isinstance(error, InvalidInput | TooLarge)
        self._metrics.ended("refused" if refused else "failed")
        if refused:
            await self._objects.delete(await until_available(lambda: self._rows.refuse(job, error), check))
            return None
        logger.error("job %s: processing %s failed", job.id, job.conversation_id, exc_info=error)
        # Where the result could not be stored, the recording waits in the spool for another try.
        storable = None if isinstance(error, StorageError) else recording
        return await until_available(lambda: self._keep(job, storable, error), check)

    async def _hear(self, job: Job, recording: SpooledFile, steps: Steps) -> Attributed:
        options = OPTIONS.validate_python(job.options)
        output = await self._speech.hear(recording.path, options.speech, steps)

        async def attribute() -> Attributed:
            named, identities = await self._people.recognise(await self._speech.attribute(output))
            return Attributed(named, dict(identities), datetime.now(UTC))

        return await steps.run("attribute", attribute, Attributed)

    async def _store(
        self, job: Job, conversation: Conversation, recording: SpooledFile, heard: Attributed, steps: Steps
    ) -> Stored:
        saved: list[StoredObject] = []

        async def store() -> Stored:
            stored = await self._objects.save(job, conversation, recording, heard)
            saved.extend(stored.objects)
            return stored

        try:
            return await steps.run("store", store, Stored)
        except Superseded:  # no checkpoint names what was saved, so no other attempt will use it
            await self._objects.delete_unnamed(job, saved)
            raise

    async def _commit(self, job: Job, heard: Attributed, stored: Stored, steps: Steps) -> None:
        try:
            replaced = await until_available(
                lambda: self._rows.commit(job, heard, stored, steps.timings_s), steps.check
            )
        except Superseded:
            if await self._rows.is_cancelled(job):  # else another attempt may have been given the same objects
                await self._objects.delete([item.locator for item in stored.objects])
            raise
        except Exception:
            await self._objects.delete_unnamed(job, stored.objects)
            raise
        await self._objects.delete(replaced)

    async def _keep(self, job: Job, recording: SpooledFile | None, error: Exception) -> str:
        """Store the recording, if there is one, and write that processing failed."""
        reason = str(error) if isinstance(error, AppError) else f"{type(error).__name__}: {error}"
        now = datetime.now(UTC)
        kept: tuple[StoredObject, ...] = ()
        if recording is not None:
            conversation = await self._rows.get_conversation(job)
            kept = await self._objects.save_failed(job, conversation, recording, reason, now)
        if not kept:
            return await self._rows.fail(job, reason, error, now, ())
        told = ProcessingFailed(
            f"The recording was stored as {kept[0].locator}, but could not be processed: {reason}", job.conversation_id
        )
        try:
            return await self._rows.fail(job, reason, told, now, kept)
        except BaseException:
            await self._objects.delete_unnamed(job, kept)
            raise
