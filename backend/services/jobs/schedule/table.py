"""The table of periodic work: what runs, how often, in which processes, and how long what it looks after is kept.

`scheduler.py` runs the table. Each run of work that only one process may do leaves a row in `schedule_runs`, which is
its claim. Other work leaves one when something was done or the result changed, and else at most every five minutes;
work that comes several times a second leaves none. `GET /health` shows the last runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from types import MappingProxyType

from backend.domain.lifecycle import (
    ACCEPTED_RECORDINGS,
    DAY_S,
    INTERRUPTED_UPLOADS,
    UNQUEUED_JOBS,
    Cadence,
    Retention,
    uploads_cadence,
)
from backend.services.jobs.heartbeat import BEAT_EVERY_S

WATCH_EVERY_S = 0.5
WATCH_REST_S = 60.0
"""The pause between two looks at nothing; a job that begins, or a caller that begins to wait, ends it."""
LOOK_AROUND_EVERY_S = 5.0
LOOK_AROUND_QUIET_S = 30.0
LOOK_FOR_LEFTOVERS_QUIET_S = 60.0
LOOK_FOR_PEERS_S = 15.0
LOOK_AROUND_AT_ONCE = 5
"""The number of processes that look around at that pace; in a larger fleet each one pauses longer."""
TIDY_AFTER_S = 1.0
"""When tidying first comes in a process: what brings jobs back after a crash is not to wait for the database."""
DELETES_EVERY_S = 60.0
QUEUES_EVERY_S = 60.0


class Kind(StrEnum):
    """The names of all periodic work, as in rows, metrics and `GET /health`."""

    HEARTBEAT = "heartbeat"
    RUNNING_JOBS = "running_jobs"
    JOB_WATCH = "job_watch"
    FLEET = "fleet"
    DEAD_PROCESSES = "dead_processes"
    LOST_JOBS = "lost_jobs"
    LOST_WORKFLOWS = "lost_workflows"
    ENDED_JOBS = "ended_jobs"
    ACCEPTED_RECORDINGS = "accepted_recordings"
    SPOOL = "spool"
    UPLOADS = "uploads"
    WEBHOOKS = "webhooks"
    DRAIN = "drain"
    DELETES = "deletes"
    QUEUES = "queues"
    QUARANTINE = "quarantine"


class Place(StrEnum):
    """Which processes do the work."""

    PROCESS = "each process"
    MACHINE = "one process of each machine"
    FLEET = "one process of the fleet"


class Means(StrEnum):
    """What does the work."""

    TASK = "task"
    WORKFLOW = "workflow"
    """A task looks whether there is something to do, and queues a durable workflow, which leaves the row."""
    THREAD = "thread"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of periodic work.

    Attributes:
        what: for people; follows "failed:" in the log.
        cadence: None for work that is done on command only.
        retention: the age that something must have before the work deletes it, or takes it up.
        rows: whether its runs leave rows.
        hurried: whether the process says when there is something to do; until then the work is quiet.
        peers: whether it looks after other processes, and is quiet only while there are none.
        first_s: how long after a process's start the first run comes.
    """

    kind: Kind
    what: str
    cadence: Cadence | None
    place: Place = Place.PROCESS
    means: Means = Means.TASK
    retention: Retention | None = None
    rows: bool = True
    hurried: bool = False
    peers: bool = False
    first_s: float = 0.0

    @property
    def kept(self) -> Retention:
        """The retention of work that has one.

        Raises:
            ValueError: it has none.
        """
        if self.retention is None:
            raise ValueError(f"{self.kind} has no retention")
        return self.retention

    @property
    def needs_claim(self) -> bool:
        """Whether processes agree by a row which of them does the work; the queue of a workflow sees to that itself."""
        return self.place != Place.PROCESS and self.means == Means.TASK


def open_schedule(*, upload_expires_s: float, jobs_keep_days: float) -> Mapping[Kind, Entry]:
    """The table.

    Args:
        upload_expires_s: how long an upload may rest.
        jobs_keep_days: how long the rows of ended jobs are kept.
    """
    often = Cadence(WATCH_EVERY_S, quiet_s=WATCH_REST_S)
    look = Cadence(LOOK_AROUND_EVERY_S, jitter=0.2, shared_by=LOOK_AROUND_AT_ONCE, quiet_s=LOOK_AROUND_QUIET_S)
    watch = replace(look, quiet_s=LOOK_FOR_PEERS_S)
    leftovers = replace(look, quiet_s=LOOK_FOR_LEFTOVERS_QUIET_S)
    tidy = partial(Entry, first_s=TIDY_AFTER_S)
    entries = (
        Entry(Kind.HEARTBEAT, "saying that this process lives", Cadence(BEAT_EVERY_S), means=Means.THREAD, rows=False),
        Entry(
            Kind.RUNNING_JOBS,
            "writing the progress of running jobs, stopping lost ones",
            often,
            rows=False,
            hurried=True,
        ),
        Entry(Kind.JOB_WATCH, "looking at jobs that clients wait for", often, rows=False, hurried=True),
        Entry(Kind.FLEET, "counting the processes, and setting the pace of all by their number", watch, peers=True),
        Entry(Kind.DEAD_PROCESSES, "taking over the jobs of dead processes", watch, peers=True),
        Entry(Kind.LOST_JOBS, "queueing jobs that wait in the rows only", look, retention=UNQUEUED_JOBS),
        Entry(Kind.LOST_WORKFLOWS, "resuming or deleting workflows whose process died", leftovers),
        tidy(
            Kind.ENDED_JOBS,
            "deleting checkpoints and rows of ended jobs",
            leftovers,
            retention=Retention(jobs_keep_days * DAY_S),
        ),
        tidy(
            Kind.ACCEPTED_RECORDINGS,
            "deleting recordings in the spool that no job needs",
            leftovers,
            retention=ACCEPTED_RECORDINGS,
        ),
        tidy(
            Kind.SPOOL,
            "deleting files of uploads in one request whose process died",
            leftovers,
            retention=INTERRUPTED_UPLOADS,
        ),
        tidy(
            Kind.UPLOADS,
            "deleting resumable uploads that have expired",
            uploads_cadence(upload_expires_s),
            Place.MACHINE,
            retention=Retention(upload_expires_s),
        ),
        tidy(Kind.WEBHOOKS, "announcing jobs of the last day that ended without an announcement", look),
        tidy(Kind.DRAIN, "moving objects that wait on the local disk to S3", look, means=Means.WORKFLOW),
        tidy(
            Kind.DELETES,
            "finishing deletes that a store held up",
            Cadence(DELETES_EVERY_S, jitter=0.1),
            Place.MACHINE,
            Means.WORKFLOW,
        ),
        tidy(
            Kind.QUEUES,
            "deleting the queues of machines without a live process",
            Cadence(QUEUES_EVERY_S, jitter=0.1),
            Place.FLEET,
        ),
        Entry(
            Kind.QUARANTINE,
            "emptying the quarantine (`aperta storage repair --empty-quarantine`)",
            None,
            Place.FLEET,
            Means.COMMAND,
            rows=False,
        ),
    )
    return MappingProxyType({entry.kind: entry for entry in entries})
