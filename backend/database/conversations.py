"""Queries about conversations as a whole. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from backend.database import transcripts
from backend.database.models import Conversation, SegmentRow
from backend.domain.states.conversations import ConversationStatus
from backend.errors import NotFound


async def get_conversation(
    session: AsyncSession, conversation_id: str, *, detailed: bool = False, lock: bool = False
) -> Conversation:
    """Get one conversation; `detailed` also loads its participants, segments and objects.

    `lock` prevents changes and deletion by other transactions until this one ends (SQLite has one writer anyway).

    Raises:
        NotFound: it does not exist, or it is being deleted.
    """
    # PostgreSQL refuses a NUL in text, and no id contains one.
    wanted = (Conversation.id == conversation_id.replace("\0", "?"), Conversation.deleted_at.is_(None))
    query = select(Conversation).where(*wanted)
    if lock:
        query = query.with_for_update()
    if detailed:
        query = query.options(
            selectinload(Conversation.participants),
            selectinload(Conversation.segments).selectinload(SegmentRow.participant),
            selectinload(Conversation.objects),
        )
    found = (await session.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"There is no conversation {conversation_id!r}.")
    return found


async def find_conversation(session: AsyncSession, conversation_id: str) -> Conversation | None:
    """Get one conversation, or None if it does not exist or is being deleted."""
    try:
        return await get_conversation(session, conversation_id)
    except NotFound:
        return None


async def list_conversations(
    session: AsyncSession, *, status: ConversationStatus | None, limit: int, offset: int
) -> tuple[Sequence[Conversation], int]:
    """Get a page of conversations, newest first, and the total; without those being deleted."""
    wanted = [Conversation.deleted_at.is_(None), *([Conversation.status == status] if status else [])]
    total = (await session.execute(select(func.count()).select_from(Conversation).where(*wanted))).scalar_one()
    page = (
        select(Conversation)
        .where(*wanted)
        .order_by(Conversation.created_at.desc(), Conversation.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return (await session.execute(page)).scalars().all(), total


async def remove(session: AsyncSession, conversation: Conversation) -> None:
    """Delete a conversation that was refused, cancelled or replaced: its transcript, its objects' rows and its own."""
    await transcripts.erase(session, conversation.id)
    await session.delete(conversation)
    await session.flush()
