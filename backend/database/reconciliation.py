"""Queries that compare rows with the contents of the stores and write the results back. Each works in the caller's
transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Result, Select, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import objects, transcripts
from backend.database.conversations import get_conversation, remove
from backend.database.models import Conversation, Job, StoredObjectRow, UploadRow, Worker
from backend.database.workers import read_clock
from backend.domain.manifest import Manifest
from backend.domain.states.conversations import ConversationStatus
from backend.errors import Conflict, NotFound

Columns = tuple[int, str, str, str, str, int, str, str | None]

_UNSEEN = {"synchronize_session": False}
ALIVE_WITHIN = timedelta(seconds=15)
"""A process whose last sign of life is older has died."""

LOST = "lost: "
"""How `StoredObjectRow.parked` begins if the object was found missing or damaged and no good copy of it exists."""


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """An object, according to its row."""

    id: int
    conversation_id: str
    kind: str
    store: str
    locator: str
    size_bytes: int
    sha256: str
    parked: str | None

    @property
    def is_lost(self) -> bool:
        return (self.parked or "").startswith(LOST)


@dataclass(frozen=True, slots=True)
class ConversationState:
    """Whether processing or deletion may still change a conversation's objects."""

    status: str
    deleted_at: datetime | None

    @property
    def settled(self) -> bool:
        return self.deleted_at is None and self.status != ConversationStatus.PROCESSING


@dataclass(frozen=True, slots=True)
class Holding:
    """Number and total size of the objects of one kind that the rows place in a store."""

    store: str
    kind: str
    objects: int
    bytes: int


async def list_records(session: AsyncSession, *, after: int, limit: int) -> Sequence[ObjectRecord]:
    """Get objects ordered by id, starting after one, without those of conversations being deleted."""
    query = _records().join(Conversation).where(Conversation.deleted_at.is_(None), StoredObjectRow.id > after)
    return _to_records(await session.execute(query.order_by(StoredObjectRow.id).limit(limit)))


async def get_records(session: AsyncSession, ids: Collection[int]) -> Sequence[ObjectRecord]:
    """Get those of these objects that still have a row and whose conversation is not being deleted."""
    query = _records().join(Conversation).where(Conversation.deleted_at.is_(None), StoredObjectRow.id.in_(ids))
    return _to_records(await session.execute(query))


async def list_records_of(session: AsyncSession, conversation_ids: Collection[str]) -> Sequence[ObjectRecord]:
    """Get the objects of several conversations, including those being deleted."""
    query = _records().where(StoredObjectRow.conversation_id.in_(conversation_ids))
    return _to_records(await session.execute(query.order_by(StoredObjectRow.id)))


async def count_records(session: AsyncSession) -> int:
    return (await session.execute(select(func.count()).select_from(StoredObjectRow))).scalar_one()


async def states_of(session: AsyncSession, conversation_ids: Collection[str]) -> dict[str, ConversationState]:
    """Get the states of conversations by id, including those being deleted."""
    query = select(Conversation.id, Conversation.status, Conversation.deleted_at)
    found = await session.execute(query.where(Conversation.id.in_(conversation_ids)))
    return {row.id: ConversationState(row.status, row.deleted_at) for row in found}


async def recordings_in_use(session: AsyncSession, names: Collection[str]) -> set[str]:
    """Return those of these spool files or locators that a job still needs."""
    query = select(Job.recording).where(Job.recording.in_(names))
    return {name for name in (await session.execute(query)).scalars() if name}


async def uploads_in_use(session: AsyncSession) -> set[str]:
    """Spool names and S3 upload ids of all resumable uploads."""
    found = await session.execute(select(UploadRow.spool, UploadRow.s3_upload_id))
    return {value for row in found for value in row if value}


async def holdings(session: AsyncSession) -> Sequence[Holding]:
    """Sum up the objects by store and kind, according to the rows."""
    columns = StoredObjectRow.store, StoredObjectRow.kind
    query = select(*columns, func.count(), func.coalesce(func.sum(StoredObjectRow.size_bytes), 0)).group_by(*columns)
    found = await session.execute(query.order_by(*columns))
    return [Holding(store, kind, objects, int(size)) for store, kind, objects, size in found]


async def count_lost(session: AsyncSession) -> int:
    query = select(func.count()).select_from(StoredObjectRow).where(StoredObjectRow.parked.startswith(LOST))
    return (await session.execute(query)).scalar_one()


async def set_parked(session: AsyncSession, record: ObjectRecord, reason: str | None) -> None:
    """Set or clear the reason why an object may not move, if it has not moved since."""
    here = (StoredObjectRow.id == record.id, StoredObjectRow.locator == record.locator)
    await session.execute(update(StoredObjectRow).where(*here).values(parked=reason))


async def point_to(session: AsyncSession, record: ObjectRecord, *, store: str, locator: str) -> None:
    """Record a new place for an object.

    Raises:
        Conflict: it moved, or its conversation is being deleted.
    """
    row = await session.get(StoredObjectRow, record.id)
    if row is None or row.locator != record.locator:
        raise Conflict(f"{record.locator} has just moved.")
    session.expunge(row)  # `switch` compares with the row as it was before
    if not await objects.switch(session, row, store=store, locator=locator, version=None):
        raise Conflict(f"{record.conversation_id} is being deleted.")


async def attach(session: AsyncSession, row: StoredObjectRow) -> None:
    """Add an object to a conversation that has no object of its kind.

    Raises:
        Conflict: the conversation has one by now, or is gone, being deleted or being processed.
    """
    try:
        conversation = await get_conversation(session, row.conversation_id, lock=True)
    except NotFound as error:
        raise Conflict(f"{row.conversation_id} has just been deleted.") from error
    if conversation.deleted_at is not None or conversation.status == ConversationStatus.PROCESSING:
        raise Conflict(f"{row.conversation_id} is being deleted or processed.")
    if any(record.kind == row.kind for record in await list_records_of(session, [row.conversation_id])):
        raise Conflict(f"{row.conversation_id} has an object of kind {row.kind}.")
    session.add(row)
    if row.kind == "audio":
        conversation.recording_url = row.locator
    elif row.kind == "transcript":
        conversation.transcript_url = row.locator


async def insert_conversation(session: AsyncSession, manifest: Manifest, rows: Sequence[StoredObjectRow]) -> bool:
    """Write all rows of a conversation from its manifest. A failed conversation without objects is replaced.

    Returns:
        False: the conversation already exists, or it is being deleted.
    """
    conversation_id = manifest.conversation_id
    query = select(Conversation).where(Conversation.id == conversation_id).with_for_update()
    existing = (await session.execute(query)).scalar_one_or_none()
    if existing is not None:
        failed = existing.status == ConversationStatus.FAILED and existing.deleted_at is None
        if manifest.status != "completed" or not failed or await list_records_of(session, [conversation_id]):
            return False
        await remove(session, existing)
    conversation = _conversation(manifest, {row.kind: row.locator for row in rows})
    session.add(conversation)
    if (transcript := manifest.transcript) is not None:
        await transcripts.write(session, conversation, transcript, manifest.speakers)
    session.add_all(rows)
    await session.flush()
    return True


def _conversation(manifest: Manifest, locators: Mapping[str, str]) -> Conversation:
    return Conversation(
        id=manifest.conversation_id,
        title=manifest.title,
        status=manifest.status,
        filename=manifest.filename,
        recording_url=locators.get("audio"),
        transcript_url=locators.get("transcript"),
        duration_s=manifest.duration_s,
        engines=manifest.engines,
        error=manifest.error,
        warnings=list(manifest.warnings) or None,
        created_at=manifest.uploaded_at,
        completed_at=manifest.completed_at,
    )


def _records() -> Select[*Columns]:
    row = StoredObjectRow
    return select(row.id, row.conversation_id, row.kind, row.store, row.locator, row.size_bytes, row.sha256, row.parked)


def _to_records(found: Result[*Columns]) -> list[ObjectRecord]:
    return [ObjectRecord(*row) for row in found]


async def list_records_below(
    session: AsyncSession, store: str, prefix: str, *, after: int, limit: int
) -> list[ObjectRecord]:
    """Objects of a store whose locators have a prefix, by id, including those of conversations being deleted."""
    here = (StoredObjectRow.store == store, _begins(StoredObjectRow.locator, prefix), StoredObjectRow.id > after)
    return _to_records(await session.execute(_records().where(*here).order_by(StoredObjectRow.id).limit(limit)))


async def find_outside(session: AsyncSession, store: str, prefix: str) -> str | None:
    """A locator of a store that does not have a prefix, if there is one."""
    query = select(StoredObjectRow.locator).where(StoredObjectRow.store == store)
    found = await session.execute(query.where(~_begins(StoredObjectRow.locator, prefix)).limit(1))
    return found.scalar_one_or_none()


async def move_all(session: AsyncSession, store: str, old: str, new: str) -> None:
    """Replace the prefix of every locator in a store: of objects, of conversations, and of jobs that wait."""
    moved = {"locator": _moved(StoredObjectRow.locator, old, new)}
    here = (StoredObjectRow.store == store, _begins(StoredObjectRow.locator, old))
    await session.execute(update(StoredObjectRow).where(*here).values(moved), execution_options=_UNSEEN)
    for owner, column in (
        (Conversation, Conversation.recording_url),
        (Conversation, Conversation.transcript_url),
        (Job, Job.recording),
    ):
        change = update(owner).where(_begins(column, old)).values({column: _moved(column, old, new)})
        await session.execute(change, execution_options=_UNSEEN)


async def list_beating(session: AsyncSession) -> Sequence[str]:
    """Names of the processes that gave a sign of life a short while ago."""
    now = await read_clock(session)
    query = select(Worker.id).where(Worker.heartbeat_at > now - ALIVE_WITHIN).order_by(Worker.started_at)
    return (await session.execute(query)).scalars().all()


def _begins(column: Any, prefix: str) -> ColumnElement[bool]:
    """LIKE would take letters of either case for the same in SQLite."""
    return func.substr(column, 1, len(prefix)) == prefix


def _moved(column: Any, old: str, new: str) -> Any:
    return literal(new) + func.substr(column, len(old) + 1)
