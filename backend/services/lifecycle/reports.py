"""What the drain says: of one object, of a pass, and of what is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class DrainResult(StrEnum):
    MOVED = "moved"
    SKIPPED = "skipped"
    """Nothing to do: the object was moved or deleted, or another process is moving it."""
    PARKED = "parked"
    """It cannot move; its row says why, and it is not tried again before `retry_parked`."""
    FAILED = "failed"
    """The local disk did not give it; it stays pending, and is tried again after a pause."""


@dataclass(frozen=True, slots=True)
class DrainOutcome:
    """What became of one object. `locator` is where it is now, if that is known."""

    object_id: int
    result: DrainResult
    locator: str | None = None
    size_bytes: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What a pass did. `stopped` says why it ended early, if it did."""

    moved: int = 0
    bytes: int = 0
    skipped: int = 0
    parked: int = 0
    failed: int = 0
    stopped: str | None = None

    def plus(self, outcome: DrainOutcome) -> DrainReport:
        """The report with one more object in it."""
        count = getattr(self, outcome.result)
        moved_bytes = outcome.size_bytes if outcome.result == DrainResult.MOVED else 0
        return replace(self, **{outcome.result: count + 1, "bytes": self.bytes + moved_bytes})


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far S3 is behind; all 0 where objects belong on the local disk.

    Attributes:
        objects: how many are on the local disk.
        bytes: their size together.
        parked: how many of them need an operator before they move.
        oldest_s: how long the oldest of the others has been waiting.
    """

    objects: int = 0
    bytes: int = 0
    parked: int = 0
    oldest_s: float = 0.0
