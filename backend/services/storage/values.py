"""The values that stores, spool and services hand to each other. Frozen; no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from backend.domain.objects import Expected as Expected
from backend.domain.objects import ObjectKind as ObjectKind
from backend.domain.objects import StoredObject as StoredObject
from backend.errors import StorageError

GiveUp = Callable[[], StorageError | None]
"""Why a save should not go on; None: it should."""


@dataclass(frozen=True, slots=True)
class Move:
    """A put in the background, of bytes that are safe elsewhere until it is done.

    Attributes:
        max_bytes_per_s: the rate that a large object keeps to; 0: none.
    """

    max_bytes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """Bytes that are complete, hashed and fsynced on the local disk, waiting for their final place."""

    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LocalFile:
    """The object may be served from this path."""

    path: Path


@dataclass(frozen=True, slots=True)
class PresignedUrl:
    """The object may be fetched from this URL until it expires. The URL is a secret: do not log it."""

    url: str = field(repr=False)
    expires_s: int


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object as its store lists it. `modified_at` is when it came to this place."""

    locator: str
    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class UnfinishedMultipart:
    """Parts that a store keeps, and bills, until their upload is completed or aborted."""

    locator: str
    upload_id: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part that has arrived. `version` is the store's name for its bytes (an ETag)."""

    number: int
    size_bytes: int
    version: str
