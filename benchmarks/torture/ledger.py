"""What a harness knows of its uploads, and what it counts. No I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from enum import StrEnum


class Outcome(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The connection broke before an answer came: it may have been accepted."""


@dataclass
class Sent:
    """One upload.

    Attributes:
        deleting: somebody asked for its deletion; the answer may be missing.
        deleted: the server said that it is deleted.
        settled: it was seen completed.
    """

    sha256: str
    size_bytes: int
    round: int
    fault: str
    outcome: Outcome = Outcome.UNKNOWN
    status: int | None = None
    conversation_id: str | None = None
    deleting: bool = False
    deleted: bool = False
    settled: bool = False

    @property
    def readable(self) -> bool:
        """Whether the server must be able to give it."""
        return self.settled and not self.deleting


@dataclass
class Tally:
    """What came of some rounds. The counts of `BAD` must all stay 0.

    Attributes:
        deaths: at a point of killing.py, where the server came by.
        answers: to uploads, by fault and status.
    """

    rounds: int = 0
    kills: int = 0
    power_losses: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    deleted: int = 0
    objects: int = 0
    lost: int = 0
    corrupt: int = 0
    rows_without_object: int = 0
    resurrected: int = 0
    served_wrong: int = 0
    stuck: int = 0
    broken: int = 0
    orphans: int = 0
    orphans_missed: int = 0
    orphans_left: int = 0
    flips: int = 0
    flips_missed: int = 0
    drained: int = 0
    retried: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    by_fault: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    @property
    def bad(self) -> dict[str, int]:
        """What must not happen and did."""
        return {name: value for name in BAD if (value := getattr(self, name))}

    def complain(self, kind: str, text: str) -> None:
        """Count what must not happen, and remember how it was."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.complaints.append(f"{kind}: {text}")

    def add(self, other: Tally) -> None:
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            setattr(self, item.name, mine + theirs)


BAD = (
    "lost",
    "corrupt",
    "rows_without_object",
    "resurrected",
    "served_wrong",
    "stuck",
    "broken",
    "orphans_missed",
    "orphans_left",
    "flips_missed",
)
