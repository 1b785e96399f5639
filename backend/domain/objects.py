"""What is known of a stored object: where it is, and how to tell that it is the right one. Values; no I/O.

They live here, below the storage service that makes them, so that `database/objects.py` can turn rows into them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ObjectKind = Literal["audio", "transcript", "metadata"]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in its final place. The locator is the truth about where it is; `key` is the same in every store.

    Attributes:
        warnings: what did not go as configured.
        version: the store's own name for this state of the object (an ETag), where it has one.
        parked: why the store it belongs in refused this one object, so that it stays where it is; None: it may move.
    """

    locator: str
    store: str
    key: str
    kind: ObjectKind
    size_bytes: int
    sha256: str
    content_type: str
    warnings: tuple[str, ...] = ()
    version: str | None = None
    parked: str | None = None

    def __str__(self) -> str:
        return self.locator


@dataclass(frozen=True, slots=True)
class Expected:
    """What a row says of an object, to be held against what the store has.

    Attributes:
        version: as in `StoredObject`.
        saved_at: when the row was written.
    """

    size_bytes: int
    sha256: str
    version: str | None = None
    saved_at: datetime | None = None
