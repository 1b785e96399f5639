"""Uploads that go past Aperta: the client sends parts straight to the bucket by signed links, then says it is done."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from backend.database import uploads
from backend.database.models import UploadRow
from backend.database.session import Database
from backend.domain.filenames import safe_filename
from backend.errors import Conflict, DatabaseUnavailable, ObjectMissing, StorageUnavailable, TooLarge
from backend.services.shares import Shares
from backend.services.storage import DirectUploads, PresignedUrl, SpooledFile, StorageService, UploadedPart
from backend.services.storage.keys import INCOMING
from backend.services.uploads.views import UploadView, view_of

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
MIN_PART_BYTES = 16 * MIB
MAX_PARTS = 2000
"""S3 allows five times as many; fewer keep the answer with their links small."""


@dataclass(frozen=True, slots=True)
class Presigned:
    """A begun upload and the links to PUT its parts to, in order."""

    upload: UploadView
    sizes_bytes: Sequence[int]
    links: Sequence[PresignedUrl]


class DirectUploadService:
    """
    Args:
        storage: its spool takes what has arrived.
        direct: the bucket, if there is one.
        shares: how many uploads one owner may have.
        max_bytes: largest upload.
        expires_s: how long the links are valid; what was not used by then is deleted.
    """

    def __init__(
        self,
        storage: StorageService,
        direct: DirectUploads | None,
        database: Database,
        shares: Shares,
        *,
        max_bytes: int,
        expires_s: int,
    ) -> None:
        self._storage = storage
        self._bucket = direct
        self._database = database
        self._shares = shares
        self._max_bytes = max_bytes
        self._expires_s = expires_s

    async def presign(self, filename: str, size_bytes: int, content_type: str | None, owner: str = "") -> Presigned:
        """Begin an upload.

        Raises:
            Conflict: there is no bucket.
            TooLarge
            ShareUsedUp: the owner has too many uploads already.
            StorageError: S3 refuses or does not answer.
        """
        if (direct := self._bucket) is None:
            raise Conflict(
                "There is no bucket to send this to (S3_BUCKET_NAME). Send it to POST /audio/process, or in pieces by "
                "the tus protocol to /uploads."
            )
        if size_bytes > self._max_bytes:
            raise TooLarge(f"The upload is larger than the {self._max_bytes} bytes allowed (MAX_UPLOAD_BYTES).")
        row = _new_row(filename, size_bytes, content_type, owner, self._expires_s)
        async with self._shares.opening(owner, None):
            upload_id = await self._begin(direct, row)
        sizes = part_sizes(size_bytes)
        return Presigned(view_of(row), sizes, await direct.sign(str(row.s3_key), upload_id, sizes, self._expires_s))

    async def complete(self, row: UploadRow) -> UploadRow:
        """Make one object of the parts. Once it is there, asking again changes nothing.

        Raises:
            Conflict: parts are missing, and which.
            ObjectMissing: the bucket has neither parts nor object.
            StorageError: S3 refuses or does not answer.
        """
        size_bytes = int(row.size_bytes or 0)
        if row.offset_bytes == size_bytes:
            return row
        direct, key, upload_id = self._direct(), str(row.s3_key), str(row.s3_upload_id)
        try:
            parts = await direct.list_parts(key, upload_id)
            _check_parts(parts, part_sizes(size_bytes))
            await direct.complete(key, upload_id, parts)
        except ObjectMissing:
            # The answer to an earlier request may have been lost: then the object is there.
            await direct.get_size(key)
        if (stored_bytes := await direct.get_size(key)) != size_bytes:
            raise Conflict(f"The bucket has {stored_bytes} of {size_bytes} bytes. Begin the upload again.")
        expires_at = datetime.now(UTC) + timedelta(seconds=self._expires_s)
        async with self._database.transaction() as session:
            await uploads.set_upload(session, row.id, offset_bytes=size_bytes, expires_at=expires_at)
            return await uploads.get_upload(session, row.id)

    @asynccontextmanager
    async def fetched(self, row: UploadRow) -> AsyncGenerator[SpooledFile, None]:
        """A complete upload as a file in the spool, for as long as the context.

        Raises:
            StorageError: it cannot be fetched, or not be kept.
        """
        size_bytes = int(row.size_bytes or 0)
        async with (
            aclosing(self._direct().open(str(row.s3_key))) as chunks,
            self._storage.spool(chunks, max_bytes=size_bytes, expected_bytes=size_bytes) as spooled,
        ):
            if spooled.size_bytes != size_bytes:
                raise StorageUnavailable(f"S3 sent {spooled.size_bytes} of {size_bytes} bytes. Try again.")
            yield spooled

    async def discard(self, row: UploadRow) -> None:
        """Delete what the bucket has of an upload.

        Raises:
            StorageError: S3 refuses or does not answer.
        """
        if self._bucket is None:
            logger.warning("%s stays in a bucket that is not in use any more (S3_BUCKET_NAME)", row.s3_key)
            return
        await self._bucket.abort(str(row.s3_key), str(row.s3_upload_id))

    async def _begin(self, direct: DirectUploads, row: UploadRow) -> str:
        key = str(row.s3_key)
        row.s3_upload_id = await direct.begin(key, row.content_type or "application/octet-stream")
        try:
            async with self._database.transaction() as session:
                session.add(row)
        except DatabaseUnavailable:
            await direct.abort(key, row.s3_upload_id)
            raise
        return row.s3_upload_id

    def _direct(self) -> DirectUploads:
        if self._bucket is None:
            raise Conflict("This upload went to a bucket that is not in use any more (S3_BUCKET_NAME).")
        return self._bucket


def part_sizes(size_bytes: int) -> list[int]:
    """Equal parts and a rest, few and not too small; the same for the same size at any time."""
    part_bytes = max(MIN_PART_BYTES, -(-size_bytes // MAX_PARTS // MIB) * MIB)
    count = max(1, -(-size_bytes // part_bytes))
    return [part_bytes] * (count - 1) + [size_bytes - part_bytes * (count - 1)]


def _new_row(filename: str, size_bytes: int, content_type: str | None, owner: str, expires_s: int) -> UploadRow:
    now, upload_id = datetime.now(UTC), f"upload_{uuid4().hex}"
    return UploadRow(
        id=upload_id,
        owner=owner,
        filename=safe_filename(filename),
        content_type=content_type,
        size_bytes=size_bytes,
        offset_bytes=0,
        s3_key=INCOMING + upload_id,
        details={},
        created_at=now,
        expires_at=now + timedelta(seconds=expires_s),
    )


def _check_parts(parts: Collection[UploadedPart], sizes_bytes: Sequence[int]) -> None:
    arrived = {part.number: part.size_bytes for part in parts}
    missing = [number for number, size in enumerate(sizes_bytes, start=1) if arrived.get(number) != size]
    if missing:
        some = ", ".join(map(str, missing[:20])) + (" …" if len(missing) > 20 else "")
        raise Conflict(f"{len(missing)} of {len(sizes_bytes)} parts have not arrived: {some}. Send them first.")
