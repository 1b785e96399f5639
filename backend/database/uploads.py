"""Queries about uploads. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database.models import UploadRow
from backend.domain.access import HeldUploads
from backend.errors import NotFound


async def get_upload(session: AsyncSession, upload_id: str, owner: str | None = None) -> UploadRow:
    """Get one upload; with `owner`, only if it is theirs.

    Raises:
        NotFound: no upload has this id.
    """
    # PostgreSQL refuses a NUL in text, and no id contains one.
    query = select(UploadRow).where(UploadRow.id == upload_id.replace("\0", "?"))
    found = (await session.execute(query)).scalar_one_or_none()
    if found is None or owner not in (None, found.owner):
        raise NotFound(f"There is no upload {upload_id[:80]!r}.")
    return found


async def set_upload(session: AsyncSession, upload_id: str, **values: Any) -> None:
    """Change columns of an upload.

    Raises:
        NotFound: it has been deleted.
    """
    query = update(UploadRow).where(UploadRow.id == upload_id).values(**values)
    if cast("CursorResult[Any]", await session.execute(query)).rowcount != 1:
        raise NotFound(f"The upload {upload_id!r} has been deleted.")


async def delete_upload(session: AsyncSession, upload_id: str) -> bool:
    """Delete an upload's row; False if it is already gone."""
    query = delete(UploadRow).where(UploadRow.id == upload_id)
    return cast("CursorResult[Any]", await session.execute(query)).rowcount == 1


async def list_expired(session: AsyncSession, before: datetime, limit: int) -> Sequence[UploadRow]:
    """Uploads that expired before an instant, the oldest first."""
    query = select(UploadRow).where(UploadRow.expires_at < before).order_by(UploadRow.expires_at).limit(limit)
    return (await session.execute(query)).scalars().all()


async def list_uploads(
    session: AsyncSession, *, owner: str | None, limit: int, offset: int
) -> tuple[Sequence[UploadRow], int]:
    """A page of open uploads, newest first, and the number of all; with `owner`, only theirs."""
    mine = [UploadRow.owner == owner] if owner is not None else []
    query = select(UploadRow).where(*mine).order_by(UploadRow.created_at.desc(), UploadRow.id)
    total = (await session.execute(select(func.count()).select_from(UploadRow).where(*mine))).scalar_one()
    return (await session.execute(query.limit(limit).offset(offset))).scalars().all(), total


async def list_held(session: AsyncSession) -> Mapping[str, HeldUploads]:
    """By owner, what open uploads hold. The bytes of those that go straight to a bucket are not on the disk."""
    on_disk = UploadRow.spool.is_not(None)
    arrived = func.sum(case((on_disk, UploadRow.offset_bytes), else_=0))
    missing = func.sum(
        case((on_disk, func.coalesce(UploadRow.size_bytes, UploadRow.offset_bytes) - UploadRow.offset_bytes), else_=0)
    )
    query = select(UploadRow.owner, func.count(), arrived, missing).group_by(UploadRow.owner)
    found = await session.execute(query)
    return {owner: HeldUploads(count, int(here), int(to_come)) for owner, count, here, to_come in found}


async def known_spools(session: AsyncSession, names: Collection[str]) -> set[str]:
    """Return those of these spool files that an upload needs."""
    query = select(UploadRow.spool).where(UploadRow.spool.in_(names))
    return {name for name in (await session.execute(query)).scalars() if name}
