"""Stored objects: rows into values and back, and every query about them but those of a reconciliation.

Each function works in the caller's transaction, and each change says what it expects to find: SQLite locks nothing for
a reader. The caller says which stores are on the local disk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Executable, Select, case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database.models import Conversation, StoredObjectRow
from backend.domain.objects import Expected, ObjectKind, StoredObject
from backend.errors import NotFound


@dataclass(frozen=True, slots=True)
class LocalObjects:
    """The amount of data on the local disk, according to the rows.

    Attributes:
        objects: their number.
        bytes: their total size.
        parked: the number of objects that may not move.
        oldest_at: when the oldest object that may move was stored; None without one.
    """

    objects: int
    bytes: int
    parked: int
    oldest_at: datetime | None


def row_of(stored: StoredObject, conversation_id: str, at: datetime) -> StoredObjectRow:
    """Return a new row for an object that was stored at an instant."""
    return StoredObjectRow(
        conversation_id=conversation_id,
        kind=stored.kind,
        store=stored.store,
        locator=stored.locator,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        content_type=stored.content_type,
        version=stored.version,
        parked=stored.parked,
        created_at=at,
    )


def stored_of(row: StoredObjectRow, key: str) -> StoredObject:
    """Return the object that a row describes. Its key is in its locator, which only its store can read."""
    return StoredObject(
        row.locator,
        row.store,
        key,
        cast("ObjectKind", row.kind),
        row.size_bytes,
        row.sha256,
        row.content_type,
        version=row.version,
        parked=row.parked,
    )


def expected_of(row: StoredObjectRow) -> Expected:
    """Return what the bytes of a row's object are compared with."""
    return Expected(row.size_bytes, row.sha256, row.version, row.created_at)


async def find_audio(session: AsyncSession, conversation_id: str) -> StoredObjectRow | None:
    """Get the row of a conversation's recording, or None."""
    wanted = (StoredObjectRow.conversation_id == conversation_id, StoredObjectRow.kind == "audio")
    query = select(StoredObjectRow).where(*wanted).order_by(StoredObjectRow.id).limit(1)
    return (await session.execute(query)).scalar_one_or_none()


async def get_audio(session: AsyncSession, conversation_id: str) -> StoredObjectRow:
    """Get the row of a conversation's recording.

    Raises:
        NotFound: nothing is stored.
    """
    found = await find_audio(session, conversation_id)
    if found is None:
        raise NotFound("This conversation has no stored recording.")
    return found


async def replace_objects(
    session: AsyncSession, conversation_id: str, objects: Sequence[StoredObject], at: datetime
) -> Sequence[str]:
    """Let the rows of a conversation name exactly these objects; rows that name one of them stay.

    Returns:
        The locators that no row names any more.
    """
    rows = {row.locator: row for row in await list_objects(session, conversation_id)}
    kept = {item.locator for item in objects}
    replaced = [locator for locator in rows if locator not in kept]
    for locator in replaced:
        await session.delete(rows[locator])
    session.add_all(row_of(item, conversation_id, at) for item in objects if item.locator not in rows)
    return replaced


async def add_objects(
    session: AsyncSession, conversation_id: str, objects: Sequence[StoredObject], at: datetime
) -> None:
    """Add a row for each of these objects that has none."""
    known = await locators_of(session, conversation_id)
    session.add_all(row_of(item, conversation_id, at) for item in objects if item.locator not in known)


async def list_local(
    session: AsyncSession, stores: Collection[str], *, after: int, limit: int
) -> Sequence[StoredObjectRow]:
    """Get objects on the local disk that may move, ordered by id, starting after one."""
    query: Select[StoredObjectRow] = _held_by(stores, StoredObjectRow)
    wanted = (StoredObjectRow.parked.is_(None), StoredObjectRow.id > after)
    return (await session.execute(query.where(*wanted).order_by(StoredObjectRow.id).limit(limit))).scalars().all()


async def find_local(session: AsyncSession, stores: Collection[str], object_id: int) -> StoredObjectRow | None:
    """Get an object on the local disk whose conversation is not deleted."""
    query: Select[StoredObjectRow] = _held_by(stores, StoredObjectRow).where(StoredObjectRow.id == object_id)
    return (await session.execute(query)).scalar_one_or_none()


async def count_local(session: AsyncSession, stores: Collection[str]) -> LocalObjects:
    """Count the objects on the local disk, without those of conversations that are being deleted."""
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
    """Mark an object as one that may not move, with the reason, if it has not moved since."""
    here = (StoredObjectRow.id == object_id, StoredObjectRow.locator == locator)
    await session.execute(update(StoredObjectRow).where(*here).values(parked=reason))


async def unpark_all(session: AsyncSession, stores: Collection[str]) -> int:
    """Let all parked objects on the local disk move again; returns their number."""
    parked = (StoredObjectRow.store.in_(stores), StoredObjectRow.parked.is_not(None))
    return await _change(session, update(StoredObjectRow).where(*parked).values(parked=None))


async def switch(session: AsyncSession, row: StoredObjectRow, *, store: str, locator: str, version: str | None) -> bool:
    """Record the new place of an object, in its row and in its conversation's.

    Returns:
        False: the object is no longer where `row` says, or its conversation is being deleted.
    """
    urls = (Conversation.recording_url, Conversation.transcript_url)
    moved_urls = {url: case((url == row.locator, locator), else_=url) for url in urls}
    # This locks the conversation's row, changed or not, so that no deletion interferes.
    alive = (Conversation.id == row.conversation_id, Conversation.deleted_at.is_(None))
    if not await _change(session, update(Conversation).where(*alive).values(moved_urls)):
        return False
    here = (StoredObjectRow.id == row.id, StoredObjectRow.locator == row.locator)
    moved = {"store": store, "locator": locator, "version": version, "parked": None}
    return await _change(session, update(StoredObjectRow).where(*here).values(moved)) == 1


async def is_in_use(session: AsyncSession, conversation_id: str, locator: str) -> bool:
    """Whether a row of a conversation that is not deleted names this locator."""
    query = (
        select(StoredObjectRow.id)
        .join(Conversation)
        .where(Conversation.id == conversation_id, Conversation.deleted_at.is_(None))
        .where(StoredObjectRow.locator == locator)
    )
    return (await session.execute(query.limit(1))).first() is not None


async def list_objects_of(session: AsyncSession, conversation_ids: Collection[str]) -> Sequence[StoredObjectRow]:
    """Get the objects of several conversations, without those being deleted."""
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
    """Run an UPDATE and return its row count. Rows that the session has already loaded are not refreshed."""
    result = await session.execute(statement, execution_options={"synchronize_session": False})
    return cast(CursorResult[Any], result).rowcount


async def locators_of(session: AsyncSession, conversation_id: str) -> set[str]:
    query = select(StoredObjectRow.locator).where(StoredObjectRow.conversation_id == conversation_id)
    return set((await session.execute(query)).scalars())


async def list_objects(session: AsyncSession, conversation_id: str) -> Sequence[StoredObjectRow]:
    query = select(StoredObjectRow).where(StoredObjectRow.conversation_id == conversation_id)
    return (await session.execute(query.order_by(StoredObjectRow.id))).scalars().all()
