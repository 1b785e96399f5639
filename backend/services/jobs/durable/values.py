"""Values that the durable engine takes and returns. Knows no DBOS."""

from __future__ import annotations

from dataclasses import dataclass

RUNS = "PENDING"
OPEN = (RUNS, "ENQUEUED", "DELAYED")
ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """How many workflows of a queue one process runs at once, and how long its next one may wait to be seen."""

    concurrency: int
    poll_s: float


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a step is tried, and which errors may pass. Waits double from `first_wait_s`."""

    attempts: int
    first_wait_s: float
    passing: tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True)
class WorkflowState:
    """What the engine knows of a workflow: PENDING is running, ENQUEUED and DELAYED are waiting, the others ended."""

    status: str
    executor_id: str | None
    version: str | None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Pending:
    """A workflow that has begun.

    Attributes:
        queue: None if it was started past every queue.
        forsaken: it is this process's, and nothing here is at it: how it ended could not be written down.
    """

    id: str
    workflow: str
    queue: str | None
    executor_id: str | None
    forsaken: bool
