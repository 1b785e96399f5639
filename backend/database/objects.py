"""Queries about stored objects on the move, and about conversations being deleted. Each works in the caller's
transaction, and each change says what it expects to find: SQLite locks nothing for a reader. Which stores are on the
local disk is the caller's to say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Executable, Select, case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database.models import (
    Conversation,
    StoredObjectRow,
)


@dataclass(frozen=True, slots=True)
class LocalObjects:
    """How much is on the local disk, by what the rows say.

    Attributes:
        objects: how many.
        bytes: their size together.
        parked: how many of them may not move.
        oldest_at: when the oldest of the others was stored; None if there are none.
    """

    objects: int
    bytes: int
    parked: int
    oldest_at: datetime | None


async def list_local(
    session: AsyncSession, stores: Collection[str], *, after: int, limit: int
) -> Sequence[StoredObjectRow]:
    """Objects on the local disk that may move, by their id, beginning after one."""
    query: Select[StoredObjectRow] = _held_by(stores, StoredObjectRow)
    wanted = (StoredObjectRow.parked.is_(None), StoredObjectRow.id > after)
    return (await session.execute(query.where(*wanted).order_by(StoredObjectRow.id).limit(limit))).scalars().all()


async def find_local(session: AsyncSession, stores: Collection[str], object_id: int) -> StoredObjectRow | None:
    """An object that is on the local disk and belongs to a conversation that is not deleted."""
    query: Select[StoredObjectRow] = _held_by(stores, StoredObjectRow).where(StoredObjectRow.id == object_id)
    return (await session.execute(query)).scalar_one_or_none()


async def count_local(session: AsyncSession, stores: Collection[str]) -> LocalObjects:
    """What is on the local disk; nothing of conversations that are being deleted."""
    free = StoredObjectRow.parked.is_(None)
    query = _held_by(
        stores,
        func.count(),
        func.coalesce(func.sum(StoredObjectRow.size_bytes), 0),
        func.count().filter(~free),
        func.min(StoredObjectRow.created_at).filter(free),
    )
    objects, size_bytes, parked, oldest_at = (await session.execute(query)).one()
    return LocalObjects(objects, int(size_bytes), parked, oldest_at)


async def park(session: AsyncSession, object_id: int, locator: str, reason: str) -> None:
    """Let an object stay where it is, if it still is there, and say why."""
    here = (StoredObjectRow.id == object_id, StoredObjectRow.locator == locator)
    await session.execute(update(StoredObjectRow).where(*here).values(parked=reason))


async def unpark_all(session: AsyncSession, stores: Collection[str]) -> int:
    """Let everything that is parked on the local disk move again; returns how many objects that are."""
    parked = (StoredObjectRow.store.in_(stores), StoredObjectRow.parked.is_not(None))
    return await _change(session, update(StoredObjectRow).where(*parked).values(parked=None))


async def switch(session: AsyncSession, row: StoredObjectRow, *, store: str, locator: str, version: str | None) -> bool:
    """Say that an object is in another place now, in its row and in its conversation's.

    Returns:
        False: another process was faster. It is not where `row` says any more, or its conversation is being deleted.
    """
    urls = (Conversation.recording_url, Conversation.transcript_url)
    moved_urls = {url: case((url == row.locator, locator), else_=url) for url in urls}
    # Changed or not, this locks the conversation's row: no delete comes in between.
    alive = (Conversation.id == row.conversation_id, Conversation.deleted_at.is_(None))
    if not await _change(session, update(Conversation).where(*alive).values(moved_urls)):
        return False
    here = (StoredObjectRow.id == row.id, StoredObjectRow.locator == row.locator)
    moved = {"store": store, "locator": locator, "version": version, "parked": None}
    return await _change(session, update(StoredObjectRow).where(*here).values(moved)) == 1


async def is_in_use(session: AsyncSession, conversation_id: str, locator: str) -> bool:
    """Whether a row of a conversation that is not deleted says that an object is there."""
    query = (
        select(StoredObjectRow.id)
        .join(Conversation)
        .where(Conversation.id == conversation_id, Conversation.deleted_at.is_(None))
        .where(StoredObjectRow.locator == locator)
    )
    return (await session.execute(query.limit(1))).first() is not None


async def list_objects_of(session: AsyncSession, conversation_ids: Collection[str]) -> Sequence[StoredObjectRow]:
    """The objects of several conversations, those that are being deleted left out."""
    query = select(StoredObjectRow).join(Conversation)
    wanted = (Conversation.id.in_(conversation_ids), Conversation.deleted_at.is_(None))
    return (await session.execute(query.where(*wanted))).scalars().all()


async def forget(session: AsyncSession, row: StoredObjectRow) -> None:
    """Delete the row of an object whose bytes are gone."""
    here = (StoredObjectRow.id == row.id, StoredObjectRow.locator == row.locator)
    await session.execute(delete(StoredObjectRow).where(*here))


def _held_by(stores: Collection[str], *what: Any) -> Select[Any]:
    query = select(*what).select_from(StoredObjectRow).join(StoredObjectRow.conversation)
    return query.where(StoredObjectRow.store.in_(stores), Conversation.deleted_at.is_(None))


async def _change(session: AsyncSession, statement: Executable) -> int:
    """Run an UPDATE; returns how many rows it found. Rows that the session has read stay as they were read."""
    result = await session.execute(statement, execution_options={"synchronize_session": False})
    return cast(CursorResult[Any], result).rowcount


async def locators_of(session: AsyncSession, conversation_id: str) -> set[str]:
    query = select(StoredObjectRow.locator).where(StoredObjectRow.conversation_id == conversation_id)
    return set((await session.execute(query)).scalars())


async def list_objects(session: AsyncSession, conversation_id: str) -> Sequence[StoredObjectRow]:
    query = select(StoredObjectRow).where(StoredObjectRow.conversation_id == conversation_id)
    return (await session.execute(query.order_by(StoredObjectRow.id))).scalars().all()
