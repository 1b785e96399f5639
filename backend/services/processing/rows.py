"""The rows of one job's conversation: each end of a job is one transaction, which only the attempt that the job names
can make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import conversations, jobs, transcripts
from backend.database.models import Conversation, ConversationStatus, Job, StoredObjectRow
from backend.database.objects import list_objects
from backend.database.session import Database
from backend.domain.job_states import JobStatus
from backend.domain.jobs import Superseded, error_to_json
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
        result = {"timings_s": dict(timings_s)}
        async with self._database.transaction() as session:
            await jobs.complete(session, job.id, job.attempt, result=result, at=datetime.now(UTC))
            row = await _get_conversation(session, job.conversation_id)
            row.recording_url, row.transcript_url = stored["audio"].locator, stored["transcript"].locator
            row.status, row.completed_at = ConversationStatus.COMPLETED, at
            row.duration_s = round(speech.duration_s, 3)
            row.engines, row.warnings, row.error = speech.engines, warnings_of(speech, stored.objects) or None, None
            rows = await list_objects(session, row.id)
            known, new = {item.locator for item in rows}, {item.locator for item in stored.objects}
            replaced = [item for item in rows if item.locator not in new]
            for item in replaced:
                await session.delete(item)
            session.add_all(object_row(row.id, item, at) for item in stored.objects if item.locator not in known)
            speakers = named_speakers(speech.stats, heard.identities)
            said = show_labels(speech.transcript, speakers)
            await transcripts.write(session, row, said, speakers, heard.identities.values())
        return [item.locator for item in replaced]

    async def refuse(self, job: Job, error: Exception) -> Sequence[str]:
        """Leave nothing of bad input but the job's row, which says why.

        Returns:
            Locators of objects that no row names any more.

        Raises:
            Superseded
        """
        async with self._database.transaction() as session:
            await jobs.refuse(session, job.id, job.attempt, error=error_to_json(error), at=datetime.now(UTC))
            objects = await list_objects(session, job.conversation_id)
            await conversations.remove(session, await _get_conversation(session, job.conversation_id))
        return [item.locator for item in objects]

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
            known = {item.locator for item in await list_objects(session, row.id)}
            row.recording_url = kept[0].locator if kept else row.recording_url
            session.add_all(object_row(row.id, item, at) for item in kept if item.locator not in known)
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


def object_row(conversation_id: str, item: StoredObject, at: datetime) -> StoredObjectRow:
    """Where a stored object is, for the database."""
    return StoredObjectRow(
        conversation_id=conversation_id,
        kind=item.kind,
        store=item.store,
        locator=item.locator,
        size_bytes=item.size_bytes,
        sha256=item.sha256,
        content_type=item.content_type,
        version=item.version,
        parked=item.parked,
        created_at=at,
    )
