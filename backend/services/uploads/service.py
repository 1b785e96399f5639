"""Uploads in several requests, which a lost connection does not lose: created, appended to, then claimed for a job.

The protocol they are sent by, tus 1.0, is spoken in `backend/api/routes/uploads.py`; where the bytes are is the matter
of `backend/services/storage/spool/resumable.py`, or of `direct.py` for those that go straight to a bucket.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import uuid4

import anyio

from backend.database import uploads
from backend.database.models import UploadRow
from backend.database.session import Database
from backend.domain.filenames import safe_filename
from backend.errors import Conflict, ObjectMissing, TooLarge, UploadExpired, UploadInUse
from backend.services.shares import Shares
from backend.services.storage import DirectUploads, SpooledFile, StorageService
from backend.services.storage.spool.resumable import Checksum, ResumableFiles
from backend.services.uploads.appenders import Appenders
from backend.services.uploads.direct import DirectUploadService
from backend.services.uploads.views import UploadView, view_of

logger = logging.getLogger(__name__)

SILENT_AFTER_S = 2.0
"""A client that asks for its offset has lost any connection that was silent for this long."""


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What the client says of an upload. `details` are its own words, given back as they came."""

    filename: str
    content_type: str | None = None
    size_bytes: int | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""


class ClaimedUpload(NamedTuple):
    """A complete upload on the local disk. The file may be moved away."""

    spooled: SpooledFile
    filename: str
    content_type: str | None


class UploadService:
    """
    Args:
        storage: says whether there is space.
        files: where the bytes are.
        direct: the bucket that clients may send to, if there is one.
        shares: how much one owner may have.
        max_bytes: largest upload.
        expires_s: an upload to which nothing has been added for that time is deleted.

    Attributes:
        direct: uploads that go past Aperta.
    """

    def __init__(
        self,
        storage: StorageService,
        files: ResumableFiles,
        direct: DirectUploads | None,
        database: Database,
        shares: Shares,
        *,
        max_bytes: int,
        expires_s: int,
    ) -> None:
        self._storage = storage
        self._files = files
        self._database = database
        self._shares = shares
        self._max_bytes = max_bytes
        self._expires_s = expires_s
        self._appenders = Appenders()
        self._claimed: set[str] = set()
        self.direct = DirectUploadService(storage, direct, database, shares, max_bytes=max_bytes, expires_s=expires_s)

    async def create(self, new: NewUpload) -> UploadView:
        """Begin an upload of known or unknown size.

        Raises:
            TooLarge
            ShareUsedUp: the owner has too many already, or too much of the disk.
            StorageFull: there is no space for it.
            DatabaseUnavailable
        """
        self._check_size(new.size_bytes or 0)
        row = UploadRow(
            id=f"upload_{uuid4().hex}",
            owner=new.owner,
            filename=safe_filename(new.filename),
            content_type=new.content_type,
            size_bytes=new.size_bytes,
            offset_bytes=0,
            spool=f"{uuid4().hex}.part",
            details=dict(new.details),
            created_at=datetime.now(UTC),
            expires_at=self._expiry(),
        )
        async with self._shares.opening(new.owner, new.size_bytes):
            await self._files.create(str(row.spool))
            async with self._database.transaction() as session:
                session.add(row)
        return view_of(row)

    async def list(self, owner: str | None, *, limit: int, offset: int) -> tuple[Sequence[UploadView], int]:
        """A page of open uploads, newest first, and the number of all; None: of every owner."""
        async with self._database.transaction() as session:
            rows, total = await uploads.list_uploads(session, owner=owner, limit=limit, offset=offset)
            return [view_of(row) for row in rows], total

    async def check_owner(self, upload_id: str, owner: str | None) -> None:
        """Refuse an upload that another began, in the words for one that is not there; None: only one that is not.

        Raises:
            NotFound
        """
        async with self._database.transaction() as session:
            await uploads.get_upload(session, upload_id, owner)

    async def get(self, upload_id: str) -> UploadView:
        """An upload as it is now, for a client that wants to go on with it.

        Raises:
            NotFound
            UploadExpired
        """
        await self._appenders.stop(upload_id, silent_s=SILENT_AFTER_S)
        return view_of(await self._get(upload_id))

    async def append(
        self,
        upload_id: str,
        stream: AsyncIterable[bytes],
        *,
        offset_bytes: int,
        size_bytes: int | None = None,
        checksum: Checksum | None = None,
    ) -> UploadView:
        """Take more of an upload. When this returns, it is on the disk; when the stream breaks off, so is what came.

        Args:
            upload_id: which.
            stream: the bytes.
            offset_bytes: where the client believes to be.
            size_bytes: of the whole, where it was not known before.
            checksum: of the stream; if it does not match, nothing of the stream is kept.

        Raises:
            NotFound, UploadExpired
            UploadInUse: another request appends to it.
            Conflict: it is somewhere else, or has another size.
            TooLarge: it would become larger than it may.
            ChecksumMismatch
            StorageError: the disk refuses, or is full.
        """
        name = _spool_of(await self._get(upload_id))
        async with self._files.open(name) as file:
            with self._appenders.begin(upload_id) as appending, appending.scope:
                row = await self._settle(upload_id, offset_bytes, size_bytes)
                end_bytes = self._max_bytes if row.size_bytes is None else row.size_bytes
                await self._storage.check_space(row.size_bytes and end_bytes - offset_bytes)

                async def note(arrived_bytes: int) -> None:
                    await self._set(upload_id, offset_bytes=arrived_bytes, expires_at=self._expiry())
                    if arrived_bytes < end_bytes:
                        await self._storage.check_space()
                    if row.size_bytes is None:
                        await self._shares.check_held(row.owner)

                await file.receive(
                    appending.heard(stream), start_bytes=offset_bytes, max_bytes=end_bytes, note=note, checksum=checksum
                )
        if appending.scope.cancelled_caught:
            raise UploadInUse("Another request asked for this upload while nothing came. Go on from where it is.")
        return view_of(await self._get(upload_id))

    async def delete(self, upload_id: str) -> None:
        """Forget an upload and what arrived of it; a request that appends to it is stopped.

        Raises:
            NotFound
            UploadInUse: another process has it.
            StorageError: S3 does not answer.
        """
        async with self._database.transaction() as session:
            row = await uploads.get_upload(session, upload_id)
        await self._appenders.stop(upload_id)
        await self.discard(row)

    async def complete(self, upload_id: str) -> UploadView:
        """Finish an upload whose parts went straight to the bucket. Asking again changes nothing.

        Raises:
            NotFound, UploadExpired
            Conflict: parts are missing, or it is another kind of upload.
            StorageError: S3 refuses or does not answer.
        """
        row = await self._get(upload_id)
        if row.spool is not None:
            raise Conflict(
                "Only an upload that was begun by POST /uploads/presign is completed; this one by its bytes."
            )
        return view_of(await self.direct.complete(row))

    async def discard(self, row: UploadRow) -> None:
        """Forget an upload and what arrived of it.

        Raises:
            UploadInUse: a request has it.
            StorageError: S3 does not answer.
        """
        if row.spool is None:
            await self._remove(row)
            return
        try:
            async with self._files.open(row.spool):
                await self._remove(row)
        except ObjectMissing:
            await self._forget(row)

    @asynccontextmanager
    async def claim(self, upload_id: str) -> AsyncGenerator[ClaimedUpload, None]:
        """Have a complete upload for processing. If the context ends well the upload is used up, else it stays.

        Raises:
            NotFound, UploadExpired
            Conflict: it is not complete.
            UploadInUse: another request has it.
            StorageError: it cannot be read.
        """
        row = await self._get(upload_id)
        if row.size_bytes is None or row.offset_bytes < row.size_bytes:
            raise Conflict(_incomplete(row))
        with self._only_claim(upload_id):
            async with self._lend(row) as spooled:
                yield ClaimedUpload(spooled, row.filename, row.content_type)
                with anyio.CancelScope(shield=True):
                    await self._use_up(row)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise TooLarge(f"The upload is larger than the {self._max_bytes} bytes allowed (MAX_UPLOAD_BYTES).")

    def _expiry(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._expires_s)

    async def _get(self, upload_id: str) -> UploadRow:
        async with self._database.transaction() as session:
            row = await uploads.get_upload(session, upload_id)
        if row.expires_at <= datetime.now(UTC):
            raise UploadExpired("Nothing came for this upload for too long: it has expired. Begin again.")
        return row

    async def _set(self, upload_id: str, **values: object) -> None:
        async with self._database.transaction() as session:
            await uploads.set_upload(session, upload_id, **values)

    async def _settle(self, upload_id: str, offset_bytes: int, size_bytes: int | None) -> UploadRow:
        """The upload, if the client is right about where it is; and its size, if that was not known before."""
        row = await self._get(upload_id)
        if row.offset_bytes != offset_bytes:
            raise Conflict(f"The upload is at byte {row.offset_bytes}, not at {offset_bytes}. Go on from there.")
        if size_bytes is None or size_bytes == row.size_bytes:
            return row
        if row.size_bytes is not None:
            raise Conflict(f"The upload has {row.size_bytes} bytes, as was said before, not {size_bytes}.")
        self._check_size(size_bytes)
        if size_bytes < offset_bytes:
            raise Conflict(f"{offset_bytes} bytes have arrived already, more than {size_bytes}.")
        await self._set(upload_id, size_bytes=size_bytes)
        return await self._get(upload_id)

    @contextmanager
    def _only_claim(self, upload_id: str) -> Iterator[None]:
        if upload_id in self._claimed:
            raise UploadInUse("Another request is using this upload. Try again in a moment.")
        self._claimed.add(upload_id)
        try:
            yield
        finally:
            self._claimed.discard(upload_id)

    def _lend(self, row: UploadRow) -> AbstractAsyncContextManager[SpooledFile]:
        return self.direct.fetched(row) if row.spool is None else self._lend_local(row)

    @asynccontextmanager
    async def _lend_local(self, row: UploadRow) -> AsyncGenerator[SpooledFile, None]:
        async with self._files.open(_spool_of(row)) as file:
            row = await self._get(row.id)  # another process may have used it up before we had it
            async with file.lent(int(row.size_bytes or 0)) as spooled:
                yield spooled

    async def _use_up(self, row: UploadRow) -> None:
        """Forget an upload that became a job. Never raises, since the job is accepted already."""
        try:
            await self._set(row.id, expires_at=datetime.now(UTC))
            await self._remove(row)
        except Exception as error:
            logger.warning("the upload %s was accepted for processing and could not be deleted: %s", row.id, error)

    async def _remove(self, row: UploadRow) -> None:
        if row.spool is None:
            await self.direct.discard(row)
            await self._forget(row)
        else:
            # The row goes first: a file without a row is swept, a row without its file would be a promise.
            await self._forget(row)
            await self._files.remove(row.spool)

    async def _forget(self, row: UploadRow) -> None:
        async with self._database.transaction() as session:
            await uploads.delete_upload(session, row.id)


def _spool_of(row: UploadRow) -> str:
    if row.spool is None:
        raise Conflict("This upload goes straight to the bucket: PUT its parts to the links that you were given.")
    return row.spool


def _incomplete(row: UploadRow) -> str:
    if row.spool is None:
        return "The upload is not complete. Send every part, then POST to its /complete."
    total = "an unknown number of" if row.size_bytes is None else row.size_bytes
    return f"Only {row.offset_bytes} of {total} bytes of the upload have arrived. Send the rest first."
