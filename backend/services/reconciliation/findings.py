"""The words of reconciliation: what may be wrong between rows and stores, and how far a look has come. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from backend.database.reconciliation import ObjectRecord
from backend.errors import AppError
from backend.services.storage import ListedObject, UnfinishedMultipart
from backend.services.storage.spool.temporary import SpoolFile


class FindingKind(StrEnum):
    MISSING = "missing"
    """A row says where an object is, and the store does not have it."""
    WRONG_SIZE = "wrong_size"
    """The object has another size than its row says."""
    CORRUPT = "corrupt"
    """The object has the size, but not the SHA-256 of its row. Found by a deep look."""
    FOUND_AGAIN = "found_again"
    """An object that is marked as lost is there, and intact."""
    ORPHAN = "orphan"
    """An object that no row points to."""
    STALE_SPOOL_FILE = "stale_spool_file"
    """What is left of an upload whose process died."""
    UNFINISHED_UPLOAD = "unfinished_upload"
    """Parts of an abandoned upload to S3."""


Subject = ObjectRecord | ListedObject | SpoolFile | UnfinishedMultipart


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `subject` is the row, object, file or upload itself."""

    kind: FindingKind
    store: str
    locator: str
    detail: str
    subject: Subject = field(repr=False)
    conversation_id: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Grace:
    """How old a thing must be before it counts as left behind; before that it may be on its way.

    Attributes:
        orphan_s: since an object came to its place.
        stale_s: since a spool file was changed or an upload in parts was begun.
    """

    orphan_s: float = 3600
    stale_s: float = 24 * 3600


@dataclass(slots=True)
class Checked:
    """How much was looked at. `foreign` are objects whose key Aperta would not give; they are never touched."""

    rows: int = 0
    objects: int = 0
    hashed_bytes: int = 0
    foreign: int = 0
    spool_files: int = 0
    unfinished_uploads: int = 0


@dataclass(frozen=True, slots=True)
class Unchecked:
    """What could not be looked at, and why; `objects` is 0 if their number is unknown."""

    store: str
    objects: int
    reason: str


@dataclass(slots=True)
class UncheckedTally:
    """Collects what could not be looked at: per store a number and the first reason."""

    _found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, store: str, objects: int, error: AppError) -> None:
        before, reason = self._found.get(store, (0, str(error)))
        self._found[store] = before + objects, reason

    @property
    def all(self) -> tuple[Unchecked, ...]:
        return tuple(Unchecked(store, objects, reason) for store, (objects, reason) in self._found.items())


@dataclass(frozen=True, slots=True)
class PassProgress:
    """How far a pass has come: `done` of `total` things of a phase; None if their number is unknown."""

    phase: str
    done: int
    total: int | None


ReportProgress = Callable[[PassProgress], None]


def ignore_progress(_step: PassProgress) -> None:
    """For callers that do not watch."""
