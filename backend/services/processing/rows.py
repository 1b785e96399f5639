"""The rows of one job's conversation: each end of a job is one transaction, which only the attempt that the job names
can make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import conversations, jobs, objects, transcripts
from backend.database.models import Conversation, Job, StoredObjectRow
from backend.database.session import Database
from backend.domain.jobs import Superseded, error_to_json
from backend.domain.states.conversations import ConversationStatus
from backend.domain.states.jobs import JobStatus
from backend.domain.voices import named_speakers, show_labels
from backend.errors import NotFound
from backend.services.processing.objects import Attributed, Stored, warnings_of
from backend.services.storage import StoredObject


class ResultRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_conversation(self, job: Job) -> Conversation:
        """Raises Superseded if the conversation was deleted."""
        async with self._database.transaction() as session:
            return await _get_conversation(session, job.conversation_id)

    async def commit(
        self, job: Job, heard: Attributed, stored: Stored, timings_s: Mapping[str, float]
    ) -> Sequence[str]:
        """Write the result.

        Returns:
            Locators of objects that no row names any more: the manifest of an earlier attempt that failed.

        Raises:
            Superseded
        """
        speech, at = heard.speech, heard.completed_at
        result = {"timings_s": dict(timings_s), "coverage": asdict(speech.coverage)}
        async with self._database.transaction() as session:
            await jobs.complete(session, job.id, job.attempt, result=result, at=datetime.now(UTC))
            row = await _get_conversation(session, job.conversation_id)
            now_stored = _as_rows_say(await objects.find_audio(session, row.id), stored.objects)
            row.recording_url, row.transcript_url = _audio_of(now_stored), stored["transcript"].locator
            row.status, row.completed_at = ConversationStatus.COMPLETED, at
            row.duration_s = round(speech.duration_s, 3)
            row.engines, row.warnings, row.error = speech.engines, warnings_of(speech, stored.objects) or None, None
            replaced = await objects.replace_objects(session, row.id, now_stored, at)
            speakers = named_speakers(speech.stats, heard.identities)
            said = show_labels(speech.transcript, speakers)
            await transcripts.write(session, row, said, speakers, heard.identities.values())
        return replaced

    async def refuse(self, job: Job, error: Exception) -> Sequence[str]:
        """Leave nothing of bad input but the job's row, which says why.

        Returns:
            Locators of objects that no row names any more.

        Raises:
            Superseded
        """
        async with self._database.transaction() as session:
            await jobs.refuse(session, job.id, job.attempt, error=error_to_json(error), at=datetime.now(UTC))
            locators = await objects.locators_of(session, job.conversation_id)
            await conversations.remove(session, await _get_conversation(session, job.conversation_id))
        return list(locators)

    async def fail(self, job: Job, reason: str, error: Exception, at: datetime, kept: Sequence[StoredObject]) -> str:
        """Say that processing failed.

        Args:
            job: whose attempt failed.
            reason: for the conversation.
            error: for the job.
            at: now.
            kept: the recording's objects, if it was stored.

        Returns:
            Where the recording is kept: a locator, or the job's id if it stays in the spool.

        Raises:
            Superseded
        """
        recording = kept[0].locator if kept else job.recording
        async with self._database.transaction() as session:
            await jobs.fail(
                session, job.id, job.attempt, error=error_to_json(error), recording=recording, at=datetime.now(UTC)
            )
            row = await _get_conversation(session, job.conversation_id)
            row.status, row.error, row.completed_at = ConversationStatus.FAILED, reason, at
            if kept:
                kept = _as_rows_say(await objects.find_audio(session, row.id), kept)
                row.recording_url = _audio_of(kept)
                await objects.add_objects(session, row.id, kept, at)
        return recording or job.id

    async def is_cancelled(self, job: Job) -> bool:
        """Whether no attempt will use what is stored for the job."""
        async with self._database.transaction() as session:
            row = await jobs.find_job(session, job.id)
            gone = await conversations.find_conversation(session, job.conversation_id) is None
        return gone or row is None or row.status == JobStatus.CANCELLED


async def _get_conversation(session: AsyncSession, conversation_id: str) -> Conversation:
    """A conversation that was deleted while it was processed stays deleted."""
    try:
        return await conversations.get_conversation(session, conversation_id, lock=True)
    except NotFound as error:
        raise Superseded("The conversation was deleted while it was processed.") from error


def _as_rows_say(found: StoredObjectRow | None, stored: Sequence[StoredObject]) -> Sequence[StoredObject]:
    """The stored objects, with the recording where its row says.

    A recording that has a row may have moved to another store since the attempt looked.
    """
    return [objects.stored_of(found, item.key) if found and item.kind == "audio" else item for item in stored]


def _audio_of(stored: Sequence[StoredObject]) -> str:
    return next(item.locator for item in stored if item.kind == "audio")
