"""Reading and deleting what was processed."""

from __future__ import annotations

from collections.abc import Sequence

from backend.database import repositories
from backend.database.models import Conversation, ConversationStatus
from backend.database.session import Database
from backend.errors import Conflict, NotFound
from backend.services.storage import LocalFile, PresignedUrl, StorageService


class ConversationService:
    def __init__(self, storage: StorageService, database: Database) -> None:
        self._storage = storage
        self._database = database

    async def list(
        self, *, status: ConversationStatus | None, limit: int, offset: int
    ) -> tuple[Sequence[Conversation], int]:
        """A page, newest first, and the number of all."""
        async with self._database.transaction() as session:
            return await repositories.list_conversations(session, status=status, limit=limit, offset=offset)

    async def get(self, conversation_id: str) -> Conversation:
        """One conversation with participants, segments and objects.

        Raises:
            NotFound
        """
        async with self._database.transaction() as session:
            return await repositories.get_conversation(session, conversation_id, detailed=True)

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

    async def get_audio(self, conversation_id: str) -> tuple[LocalFile | PresignedUrl, Conversation, str]:
        """How to hand out the recording, whose it is, and its content type.

        Raises:
            NotFound, StorageError
        """
        async with self._database.transaction() as session:
            conversation = await repositories.get_conversation(session, conversation_id)
            objects = await repositories.list_objects(session, conversation_id)
        audio = next((item for item in objects if item.kind == "audio"), None)
        if audio is None:
            raise NotFound("This conversation has no stored recording.")
        access = await self._storage.access(
            audio.locator, filename=conversation.filename, content_type=audio.content_type
        )
        return access, conversation, audio.content_type

    async def delete(self, conversation_id: str) -> None:
        """Objects first, then the rows, so that a failure can be repeated and nothing is orphaned.

        The row only goes in a transaction that sees no other object: what a job that ends meanwhile stored goes too.

        Raises:
            NotFound, StorageError
        """
        gone: set[str] = set()
        while True:
            async with self._database.transaction() as session:
                conversation = await repositories.get_conversation(session, conversation_id, lock=True)
                objects = await repositories.list_objects(session, conversation_id)
                left = [item.locator for item in objects if item.locator not in gone]
                if not left:
                    await session.delete(conversation)
                    return
            for locator in left:
                await self._storage.delete(locator)
            gone.update(left)
