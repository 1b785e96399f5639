"""The life of a job: its states, the transitions between them, and the columns that each transition sets. Pure.

`backend.database.jobs` has one function for each transition and is the only module that writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (JobStatus.QUEUED, JobStatus.RUNNING)
ENDED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)

MAX_CRASHES = 3
"""A job whose attempts die this many times in a row, without finishing a step, is parked."""


class Transition(StrEnum):
    ACCEPT = "accept"
    CLAIM = "claim"
    PROGRESS = "progress"
    COMPLETE = "complete"
    FAIL = "fail"
    REFUSE = "refuse"
    PARK = "park"
    CANCEL = "cancel"
    ABANDON = "abandon"
    REQUEUE = "requeue"
    RETRY = "retry"
    ERASE = "erase"


@dataclass(frozen=True, slots=True)
class Edge:
    """From which states a transition starts and in which it ends; without `after` the state stays."""

    before: tuple[JobStatus, ...]
    after: JobStatus | None


EDGES: Mapping[Transition, Edge] = {
    Transition.ACCEPT: Edge((), JobStatus.QUEUED),
    # A running job is claimed again when its process died and the queue noticed first.
    Transition.CLAIM: Edge(ACTIVE, JobStatus.RUNNING),
    Transition.PROGRESS: Edge((JobStatus.RUNNING,), JobStatus.RUNNING),
    Transition.COMPLETE: Edge((JobStatus.RUNNING,), JobStatus.COMPLETED),
    Transition.FAIL: Edge((JobStatus.RUNNING,), JobStatus.FAILED),
    Transition.REFUSE: Edge((JobStatus.RUNNING,), JobStatus.FAILED),
    Transition.PARK: Edge(ACTIVE, JobStatus.FAILED),
    Transition.CANCEL: Edge(ACTIVE, JobStatus.CANCELLED),
    # Not from QUEUED: a job that was taken from an attempt still names it until the next one begins.
    Transition.ABANDON: Edge((JobStatus.RUNNING,), JobStatus.CANCELLED),
    Transition.REQUEUE: Edge((JobStatus.RUNNING,), JobStatus.QUEUED),
    Transition.RETRY: Edge((JobStatus.FAILED,), JobStatus.QUEUED),
    Transition.ERASE: Edge(tuple(JobStatus), None),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One transition of one job.

    Attributes:
        transition: which.
        columns: every column that it sets, with the new value; all others stay.
    """

    transition: Transition
    columns: Mapping[str, object]

    @property
    def before(self) -> tuple[JobStatus, ...]:
        """The states in which a job may be changed like this."""
        return EDGES[self.transition].before


class Turn(StrEnum):
    """What to do with a job that a queue hands out."""

    SKIP = "skip"
    RUN = "run"
    RUN_ALONE = "run alone"
    PARK = "park"


def turn_of(status: str, crashes: int) -> Turn:
    """What to do with a job that a queue hands out.

    Args:
        status: of the job.
        crashes: as `crashes_at_claim` counts them.
    """
    if status in ENDED:
        return Turn.SKIP
    if crashes >= MAX_CRASHES:
        return Turn.PARK
    return Turn.RUN_ALONE if crashes else Turn.RUN


def crashes_at_claim(status: str, crashes: int) -> int:
    """How many attempts in a row have died; the one that a running job names died, too, if the job can be claimed."""
    return crashes + (status == JobStatus.RUNNING)


def accepted() -> Change:
    """A recording is safe and its job begins to wait."""
    return _change(
        Transition.ACCEPT,
        stage=None,
        progress=0.0,
        attempt=0,
        crashes=0,
        worker_id=None,
        result=None,
        error=None,
        started_at=None,
        finished_at=None,
    )


def claimed(*, worker_id: str, attempt: int, crashes: int, started_at: datetime | None, at: datetime) -> Change:
    """A process takes the job, under a new attempt.

    Args:
        worker_id: the process.
        attempt: the job's last attempt.
        crashes: as `crashes_at_claim` counts them.
        started_at: when an earlier attempt began.
        at: now.
    """
    return _change(
        Transition.CLAIM,
        worker_id=worker_id,
        attempt=attempt + 1,
        crashes=crashes,
        started_at=started_at or at,
    )


def progressed(*, stage: str | None, progress: float, advanced: bool) -> Change:
    """An attempt says how far it is. One that has finished a step is not what its recording kills."""
    return _change(Transition.PROGRESS, stage=stage, progress=progress, **({"crashes": 0} if advanced else {}))


def completed(*, result: Mapping[str, object], at: datetime) -> Change:
    """The result is committed; the recording is its conversation's now."""
    return _change(
        Transition.COMPLETE,
        stage=None,
        progress=1.0,
        worker_id=None,
        recording=None,
        result=result,
        error=None,
        finished_at=at,
    )


def failed(*, error: Mapping[str, object], recording: str | None, at: datetime) -> Change:
    """An engine or a store broke.

    `stage` stays and says where.

    Args:
        error: as `error_to_json` makes it.
        recording: where the recording is kept for another try.
        at: now.
    """
    return _change(Transition.FAIL, worker_id=None, recording=recording, error=error, finished_at=at)


def refused(*, error: Mapping[str, object], at: datetime) -> Change:
    """The recording is no usable input: another try would end the same way, so the recording is not kept."""
    return _change(Transition.REFUSE, worker_id=None, recording=None, error=error, finished_at=at)


def parked(*, error: Mapping[str, object], crashes: int, at: datetime) -> Change:
    """The recording kills the processes that work on it. It is kept: the fault may be the program's, and a retry work.

    `stage` stays and says where.
    """
    return _change(Transition.PARK, worker_id=None, crashes=crashes, error=error, finished_at=at)


def cancelled(*, at: datetime) -> Change:
    """The client wants no result, or deleted the conversation. Nothing is kept, so no stage is shown either."""
    return _change(Transition.CANCEL, stage=None, worker_id=None, recording=None, finished_at=at)


def abandoned(*, at: datetime) -> Change:
    """An attempt finds its conversation deleted. To a client that is a cancelled job."""
    return Change(Transition.ABANDON, cancelled(at=at).columns)


def requeued(*, crashes: int) -> Change:
    """An attempt ends without a result. `stage` and `progress` stay, since finished steps are not repeated."""
    return _change(Transition.REQUEUE, worker_id=None, crashes=crashes)


def retried() -> Change:
    """A failed job waits again, from the beginning; `attempt` goes on counting, because stored objects bear it."""
    return _change(
        Transition.RETRY,
        stage=None,
        progress=0.0,
        crashes=0,
        result=None,
        error=None,
        started_at=None,
        finished_at=None,
    )


def erased() -> Change:
    """The conversation is deleted: the job keeps nothing of what it was given, or that a message may quote."""
    return _change(
        Transition.ERASE,
        filename="",
        content_type=None,
        sha256="",
        recording=None,
        options={},
        error=None,
        idempotency_key=None,
    )


def _change(transition: Transition, **columns: object) -> Change:
    after = EDGES[transition].after
    return Change(transition, columns if after is None else {"status": after, **columns})
