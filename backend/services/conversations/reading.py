"""Reading what was processed."""

from __future__ import annotations

from collections.abc import Sequence

from backend.database import conversations, objects
from backend.database.models import Conversation, StoredObjectRow
from backend.database.session import Database
from backend.domain.states.conversations import ConversationStatus
from backend.errors import Conflict, ObjectMissing
from backend.services.conversations.views import (
    ConversationView,
    DetailedConversation,
    ObjectView,
    detail_of,
    object_view_of,
    view_of,
)
from backend.services.storage import Access, StorageService


class ConversationService:
    def __init__(self, storage: StorageService, database: Database) -> None:
        self._storage = storage
        self._database = database

    async def list(
        self, *, status: ConversationStatus | None, limit: int, offset: int
    ) -> tuple[Sequence[ConversationView], int]:
        """A page, newest first, and the number of all."""
        async with self._database.transaction() as session:
            rows, total = await conversations.list_conversations(session, status=status, limit=limit, offset=offset)
            return [view_of(row) for row in rows], total

    async def get(self, conversation_id: str) -> DetailedConversation:
        """One conversation with participants, transcript and objects.

        Raises:
            NotFound
        """
        async with self._database.transaction() as session:
            return detail_of(await conversations.get_conversation(session, conversation_id, detailed=True))

    async def get_finished(self, conversation_id: str) -> DetailedConversation:
        """As `get`, but only if there is a transcript.

        Raises:
            NotFound, Conflict
        """
        conversation = await self.get(conversation_id)
        if conversation.status == ConversationStatus.PROCESSING:
            raise Conflict("The conversation is still being processed; ask again in a moment.")
        if conversation.status == ConversationStatus.FAILED:
            raise Conflict(f"The conversation has no transcript, because processing failed: {conversation.error}")
        return conversation

    async def get_audio(self, conversation_id: str) -> tuple[Access, ConversationView, ObjectView]:
        """How to send the recording, its conversation, and what its row says.

        Raises:
            NotFound, StorageError
        """
        conversation, audio = await self._find_audio(conversation_id)
        try:
            return await self._access(conversation, audio), view_of(conversation), object_view_of(audio)
        except ObjectMissing:
            # It may have moved to S3 since its row was read: then the row, read again, says where.
            conversation, now = await self._find_audio(conversation_id)
            if now.locator == audio.locator:
                raise
            return await self._access(conversation, now), view_of(conversation), object_view_of(now)

    async def _find_audio(self, conversation_id: str) -> tuple[Conversation, StoredObjectRow]:
        async with self._database.transaction() as session:
            conversation = await conversations.get_conversation(session, conversation_id)
            return conversation, await objects.get_audio(session, conversation_id)

    async def _access(self, conversation: Conversation, audio: StoredObjectRow) -> Access:
        return await self._storage.access(
            audio.locator,
            filename=conversation.filename,
            content_type=audio.content_type,
            expected=objects.expected_of(audio),
        )
