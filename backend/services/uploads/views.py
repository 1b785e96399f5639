"""What a caller gets of an upload: a value, made from its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from backend.database.models import UploadRow


@dataclass(frozen=True, slots=True)
class UploadView:
    """An upload at one moment.

    Attributes:
        size_bytes: of the whole; None while the client has not said it.
        offset_bytes: how much has safely arrived.
        details: the client's own words, returned as they came.
        is_direct: the parts go straight to the bucket, so `offset_bytes` says nothing until it is complete.
    """

    id: str
    filename: str
    size_bytes: int | None
    offset_bytes: int
    details: Mapping[str, str]
    is_direct: bool
    expires_at: datetime
    owner: str
    created_at: datetime


def view_of(row: UploadRow) -> UploadView:
    return UploadView(
        row.id,
        row.filename,
        row.size_bytes,
        row.offset_bytes,
        row.details,
        row.spool is None,
        row.expires_at,
        row.owner,
        row.created_at,
    )
