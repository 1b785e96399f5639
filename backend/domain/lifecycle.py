"""Rules of time as values: how often work is done, how long something is kept. Pure; the caller brings the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAY_S = 86_400.0
BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often work is done.

    Attributes:
        every_s: the pause between two runs.
        jitter: the share of the pause by which a run may come earlier or later, so that processes do not run in step.
        shared_by: how many processes keep this pace. In a larger fleet each process pauses longer, so that the number
            of runs of the whole fleet stays the same. None: the pause does not depend on the fleet.
        quiet_s: the pause of a process in which nothing happens; None: no other than `every_s`.
    """

    every_s: float
    jitter: float = 0.0
    shared_by: int | None = None
    quiet_s: float | None = None

    def pause_s(self, *, processes: int, chance: float, quiet: bool = False) -> float:
        """How long a process waits for its next run.

        Args:
            processes: the size of the fleet.
            chance: between 0 and 1; where in the range of the jitter this pause lies.
            quiet: whether nothing happens in the process.
        """
        crowd = max(1.0, processes / self.shared_by) if self.shared_by else 1.0
        every_s = self.quiet_s if quiet and self.quiet_s is not None else self.every_s
        return every_s * crowd * (1 + self.jitter * (2 * chance - 1))

    def is_due(self, now: datetime, last: datetime | None) -> bool:
        """Whether it is time for another run.

        Args:
            last: the start of the last run; None if there was none.
        """
        return self.due_in_s(now, last) <= 0

    def due_in_s(self, now: datetime, last: datetime | None) -> float:
        """Seconds until the next run is due; 0 if it is due now."""
        # A last run in the future comes from a clock that was put back; waiting for that time could take years.
        if last is None or last > now:
            return 0.0
        return max(0.0, self.every_s - (now - last).total_seconds())


@dataclass(frozen=True, slots=True)
class Retention:
    """How long something is kept after the instant that counts, for example its end or its last change."""

    keep_s: float

    def expired(self, at: datetime, now: datetime) -> bool:
        """Whether what happened at an instant has been kept long enough."""
        return at <= self.expiry(now)

    def expiry(self, now: datetime) -> datetime:
        """The latest instant that is old enough at `now`, for queries."""
        try:
            return now - timedelta(seconds=self.keep_s)
        except OverflowError:
            return BEGINNING


ACCEPTED_RECORDINGS = Retention(10)
"""Recordings in the spool that no job names. After this time a commit that was on its way has arrived or failed."""

INTERRUPTED_UPLOADS = Retention(10)
"""Files of uploads in one request, after their last byte. A live process holds a lock on its file from the start."""

UNQUEUED_JOBS = Retention(5)
"""Jobs that wait in the rows before they are looked for in the queue; queueing them takes a moment."""

UNANNOUNCED_JOBS = Retention(DAY_S)
"""Jobs that ended and whose webhook has no message; older ones are not announced any more."""

SCHEDULE_RUNS = 50
"""The newest rows of each kind of periodic work that are kept."""


def uploads_cadence(expires_s: float) -> Cadence:
    """How often expired uploads are looked for: 20 times in their lifetime, within 30 s and 10 min."""
    return Cadence(min(max(expires_s / 20, 30.0), 600.0), jitter=0.1)
