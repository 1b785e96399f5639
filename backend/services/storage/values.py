"""The values that stores, spool and services hand to each other. Frozen; no I/O."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
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
class NewObject:
    """An object that is to be stored.

    Attributes:
        metadata: for the object's headers, in stores that have them.
        move: the bytes come from another store. Then no save waits for this put, and an object of the same bytes under
            the key is what an earlier attempt left, and is taken over.
    """

    spooled: SpooledFile
    kind: ObjectKind
    key: str
    content_type: str
    metadata: Mapping[str, object] = field(default_factory=dict)
    move: Move | None = None


@dataclass(frozen=True, slots=True)
class ObjectState:
    """An object as its store has it now.

    Attributes:
        size_bytes: the size of what `open` gives.
        version: differs once the bytes have changed; to be compared with nothing but the same object's.
    """

    size_bytes: int
    version: str


@dataclass(frozen=True, slots=True)
class StoreTraits:
    """What a store can do, so that no caller goes by its name.

    Attributes:
        is_local: the objects are on this machine's disk. It answers at once, and other machines may not see it.
        serves_paths: `access` answers with a file that has the object's bytes.
        presigns: `access` answers with a URL that has the object's bytes.
        takes_parts: an object may be sent in parts, which can be left unfinished.
    """

    is_local: bool = False
    serves_paths: bool = False
    presigns: bool = False
    takes_parts: bool = False


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
class Stream:
    """The object has to be read through its store: `open(start, end)` gives the bytes from start up to, not including,
    end; with None to the end."""

    size_bytes: int
    open: Callable[[int, int | None], AsyncGenerator[bytes, None]] = field(repr=False)


Access = LocalFile | PresignedUrl | Stream
"""How a client may be given an object."""


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
