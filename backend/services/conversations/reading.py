"""Reading what was processed."""

from __future__ import annotations

from collections.abc import Sequence

from backend.database import conversations
from backend.database.models import Conversation, ConversationStatus, StoredObjectRow
from backend.database.objects import list_objects
from backend.database.session import Database
from backend.errors import Conflict, NotFound, ObjectMissing
from backend.services.storage import Access, Expected, StorageService


class ConversationService:
    def __init__(self, storage: StorageService, database: Database) -> None:
        self._storage = storage
        self._database = database

    async def list(
        self, *, status: ConversationStatus | None, limit: int, offset: int
    ) -> tuple[Sequence[Conversation], int]:
        """A page, newest first, and the number of all."""
        async with self._database.transaction() as session:
            return await conversations.list_conversations(session, status=status, limit=limit, offset=offset)

    async def get(self, conversation_id: str) -> Conversation:
        """One conversation with participants, segments and objects.

        Raises:
            NotFound
        """
        async with self._database.transaction() as session:
            return await conversations.get_conversation(session, conversation_id, detailed=True)

    async def get_finished(self, conversation_id: str) -> Conversation:
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

    async def get_audio(self, conversation_id: str) -> tuple[Access, Conversation, StoredObjectRow]:
        """How to hand out the recording, whose it is, and what its row says.

        Raises:
            NotFound, StorageError
        """
        conversation, audio = await self._find_audio(conversation_id)
        try:
            return await self._access(conversation, audio), conversation, audio
        except ObjectMissing:
            # Between the two looks it may have moved to S3: then the row, read again, says where.
            conversation, now = await self._find_audio(conversation_id)
            if now.locator == audio.locator:
                raise
            return await self._access(conversation, now), conversation, now

    async def _find_audio(self, conversation_id: str) -> tuple[Conversation, StoredObjectRow]:
        async with self._database.transaction() as session:
            conversation = await conversations.get_conversation(session, conversation_id)
            objects = await list_objects(session, conversation_id)
        audio = next((item for item in objects if item.kind == "audio"), None)
        if audio is None:
            raise NotFound("This conversation has no stored recording.")
        return conversation, audio

    async def _access(self, conversation: Conversation, audio: StoredObjectRow) -> Access:
        expected = Expected(audio.size_bytes, audio.sha256, audio.version, audio.created_at)
        return await self._storage.access(
            audio.locator, filename=conversation.filename, content_type=audio.content_type, expected=expected
        )
