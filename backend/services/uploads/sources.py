"""A recording wherever it comes from: a stream, a URL, or an upload made before. Opened, it is a local file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backend.services.remote.download import Fetcher
from backend.services.shares import Shares
from backend.services.storage import SpooledFile, StorageService
from backend.services.uploads.service import UploadService


@dataclass(frozen=True, slots=True)
class StreamedRecording:
    """A recording that arrives as a stream; `size_bytes` is what its sender announced, if anything."""

    chunks: AsyncIterator[bytes]
    filename: str
    content_type: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteRecording:
    """A recording to fetch from a URL."""

    url: str


@dataclass(frozen=True, slots=True)
class UploadedRecording:
    """A complete upload, resumable or straight to the bucket."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class ReceivedRecording:
    """A recording in the spool. `filename` and `content_type` are the client's words."""

    spooled: SpooledFile
    filename: str
    content_type: str | None = None


Source = StreamedRecording | RemoteRecording | UploadedRecording | ReceivedRecording


class Sources:
    """
    Args:
        shares: how much one owner may send at once.
        max_bytes: largest recording.
    """

    def __init__(
        self, storage: StorageService, fetcher: Fetcher, uploads: UploadService, shares: Shares, *, max_bytes: int
    ) -> None:
        self._storage = storage
        self._fetcher = fetcher
        self._uploads = uploads
        self._shares = shares
        self._max_bytes = max_bytes

    @asynccontextmanager
    async def spool(
        self, chunks: AsyncIterator[bytes], size_bytes: int | None, owner: str
    ) -> AsyncGenerator[SpooledFile, None]:
        """Write a stream to the local disk, where it stays while the context is open.

        Raises:
            TooLarge
            ShareUsedUp: its owner holds too much of the disk.
            StorageFull: there is no space for it; raised before the first byte is read if its size is known.
        """
        async with (
            self._shares.receiving(owner, size_bytes, chunks) as counted,
            self._storage.spool(counted, max_bytes=self._max_bytes, expected_bytes=size_bytes) as file,
        ):
            yield file

    @asynccontextmanager
    async def open(self, source: Source, owner: str) -> AsyncGenerator[ReceivedRecording, None]:
        """Have a recording on the local disk while the context is open. If that ends well, an upload is used up.

        Args:
            source: where the recording comes from.
            owner: whose share it counts against. An upload has to belong to this owner.

        Raises:
            AppError: the recording cannot be read, fetched or stored; each source has its own reasons.
        """
        match source:
            case ReceivedRecording():
                yield source
            case StreamedRecording(chunks, filename, content_type, size_bytes):
                async with self.spool(chunks, size_bytes, owner) as file:
                    yield ReceivedRecording(file, filename, content_type)
            case RemoteRecording(url):
                async with (
                    self._fetcher.open(url) as remote,
                    self.spool(remote.chunks, remote.size_bytes, owner) as file,
                ):
                    yield ReceivedRecording(file, remote.filename, remote.content_type)
            case UploadedRecording(upload_id):
                await self._uploads.check_owner(upload_id, owner)
                async with self._uploads.claim(upload_id) as (file, filename, content_type):
                    yield ReceivedRecording(file, filename, content_type)
