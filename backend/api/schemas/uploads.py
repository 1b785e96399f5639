"""Direct uploads to the bucket in the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from backend.api.requests.multipart import valid_media_type
from backend.services.uploads.direct import Presigned
from backend.services.uploads.views import UploadView


class PresignIn(BaseModel):
    filename: Annotated[str, Field(min_length=1, max_length=4096, examples=["meeting.wav"])]
    size_bytes: Annotated[int, Field(ge=1, examples=[52_428_800])]
    content_type: Annotated[str | None, Field(max_length=255, examples=["audio/wav"])] = None

    @property
    def media_type(self) -> str | None:
        """The content type, if it is one of audio or video."""
        return valid_media_type(self.content_type or "")


class PartOut(BaseModel):
    part_number: int
    size_bytes: int = Field(description="Exact size of this part")
    url: str = Field(description="Presigned URL to PUT the part to. Keep it secret: it allows writing this part")


class PresignOut(BaseModel):
    upload_id: str = Field(examples=["upload_2f6c"])
    parts: list[PartOut] = Field(description="Parts in file order")
    expires_at: datetime

    @classmethod
    def from_presigned(cls, begun: Presigned) -> PresignOut:
        parts = [
            PartOut(part_number=number, size_bytes=size_bytes, url=link.url)
            for number, (size_bytes, link) in enumerate(zip(begun.sizes_bytes, begun.links, strict=True), start=1)
        ]
        return cls(upload_id=begun.upload.id, parts=parts, expires_at=begun.upload.expires_at)


class UploadOut(BaseModel):
    upload_id: str
    filename: str
    size_bytes: int
    expires_at: datetime

    @classmethod
    def from_upload(cls, upload: UploadView) -> UploadOut:
        return cls(
            upload_id=upload.id,
            filename=upload.filename,
            size_bytes=upload.size_bytes or 0,
            expires_at=upload.expires_at,
        )


class OpenUploadOut(BaseModel):
    upload_id: str
    owner: str = Field(description="Name of the API key that began it; empty without API keys")
    filename: str
    size_bytes: int | None = Field(description="Size of the whole; null while it is not known")
    offset_bytes: int = Field(description="Bytes that have arrived; 0 until a direct upload is complete")
    is_direct: bool = Field(description="Whether its parts go straight to the bucket")
    created_at: datetime
    expires_at: datetime


class UploadPage(BaseModel):
    uploads: list[OpenUploadOut]
    total: int
    limit: int
    offset: int

    @classmethod
    def from_uploads(cls, found: Sequence[UploadView], total: int, limit: int, offset: int) -> UploadPage:
        uploads = [
            OpenUploadOut(
                upload_id=upload.id,
                owner=upload.owner,
                filename=upload.filename,
                size_bytes=upload.size_bytes,
                offset_bytes=upload.offset_bytes,
                is_direct=upload.is_direct,
                created_at=upload.created_at,
                expires_at=upload.expires_at,
            )
            for upload in found
        ]
        return cls(uploads=uploads, total=total, limit=limit, offset=offset)
