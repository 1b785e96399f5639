"""Queries that delete a conversation: first a tombstone, then its objects' rows, then the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import jobs, transcripts
from backend.database.models import Conversation, StoredObjectRow
from backend.database.objects import _change


async def bury(session: AsyncSession, conversation_id: str, at: datetime) -> bool:
    """Set a conversation's tombstone and erase what was said, by whom and how they sound; its objects stay listed.

    Its jobs are stopped, and keep nothing of what they were given.

    Returns:
        False: there is no such conversation, or it has a tombstone. Roll back then.
    """
    # Jobs before conversations, as everywhere, so that no two transactions wait for each other. The erasure is
    # first: it locks every job of the conversation, so no retry slips in before the active ones are cancelled.
    await jobs.erase_all_of(session, conversation_id)
    await jobs.cancel_all_of(session, conversation_id, at=at)
    alive = (Conversation.id == conversation_id.replace("\0", "?"), Conversation.deleted_at.is_(None))
    if not await _change(session, update(Conversation).where(*alive).values(deleted_at=at, title=None)):
        return False
    await transcripts.erase(session, conversation_id)
    return True


async def list_buried(session: AsyncSession, *, after: str, limit: int) -> Sequence[str]:
    """Ids of conversations with a tombstone, in their order, beginning after an id."""
    query = select(Conversation.id).where(Conversation.deleted_at.is_not(None), Conversation.id > after)
    return (await session.execute(query.order_by(Conversation.id).limit(limit))).scalars().all()


async def remove_buried(session: AsyncSession, conversation_id: str) -> bool:
    """Delete the row of a conversation with a tombstone.

    Returns:
        False: not yet, it has objects.
    """
    await session.execute(select(Conversation.id).where(Conversation.id == conversation_id).with_for_update())
    objects = exists().where(StoredObjectRow.conversation_id == Conversation.id)
    buried = (Conversation.id == conversation_id, Conversation.deleted_at.is_not(None))
    await session.execute(delete(Conversation).where(*buried, ~objects))
    left = select(Conversation.id).where(*buried)
    return (await session.execute(left)).first() is None
