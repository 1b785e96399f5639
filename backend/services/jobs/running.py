"""RunningJobs: the jobs that run in this process, and whether they are still this process's."""

from __future__ import annotations

from collections.abc import Callable

from backend.database import jobs
from backend.database.session import Database
from backend.domain.states.jobs import JobStatus
from backend.services.jobs.schedule.log import IDLE, Outcome
from backend.services.jobs.steps import Interruption, JobProgress


class RunningJobs:
    """Filled by the runner, watched by the schedule.

    Attributes:
        on_first: what to call when a job begins and none ran.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running: dict[str, tuple[int, JobProgress]] = {}
        self.on_first: Callable[[], None] | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the jobs."""
        return tuple(self._running)

    def add(self, job_id: str, attempt: int, progress: JobProgress) -> None:
        """An attempt at a job begins."""
        if not self._running and self.on_first is not None:
            self.on_first()
        self._running[job_id] = (attempt, progress)

    def remove(self, job_id: str) -> None:
        """The attempt at a job has ended; does nothing if the job is not here."""
        self._running.pop(job_id, None)

    def interrupt(self, reason: Interruption) -> None:
        """Stop all of them at their next sign of progress."""
        for _, progress in self._running.values():
            progress.interrupt(reason)

    async def watch(self) -> Outcome:
        """Write how far the jobs are, and stop those that are not this process's any more.

        Raises:
            DatabaseUnavailable
        """
        running = dict(self._running)
        if not running:
            return IDLE
        async with self._database.transaction() as session:
            known = await jobs.attempts_of(session, [*running])
            for job_id, (attempt, progress) in running.items():
                if known.get(job_id) != (JobStatus.RUNNING, attempt):
                    progress.interrupt(Interruption.LOST)
                    continue
                await jobs.report_progress(
                    session, job_id, attempt, progress.stage, progress.fraction, advanced=progress.advanced
                )
        return Outcome({"jobs": len(running)})
