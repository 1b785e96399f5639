"""Jobs from outside: accepting a recording, asking how far it is, waiting, cancelling, trying again.

An accepted recording is a file in the spool (or a stored object, for workers on other machines), a row of a job and a
row of a conversation; only then is it queued. `runner.py` runs a job; `maintenance.py` requeues lost ones and deletes
what is left behind.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast
from uuid import uuid4

from anyio import CancelScope
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import conversations, jobs, objects
from backend.database.models import Conversation, ConversationStatus, Job
from backend.database.session import Database
from backend.domain.filenames import safe_filename
from backend.domain.job_states import ENDED, JobStatus
from backend.domain.jobs import error_from_json
from backend.errors import Conflict, DatabaseUnavailable, InvalidInput, NotFound, TooManyJobs
from backend.observability.metrics import Metrics
from backend.services.jobs.durable import DurableEngine
from backend.services.jobs.watch import JobWatch
from backend.services.processing.rows import object_row
from backend.services.processing.service import OPTIONS, ProcessOptions
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.speech.values import StageProgress, ignore_progress
from backend.services.storage import SpooledFile, StorageService, StoredObject

logger = logging.getLogger(__name__)

WORKFLOW = "process_recording"
SHORT, LONG = "asr", "asr-long"
QUEUES = (SHORT, LONG)
LONG_FROM_S = 30 * 60
"""Recordings from this length on have a separate queue, so that short ones are not stuck behind them."""


@dataclass(frozen=True, slots=True)
class ReceivedRecording:
    """A received recording. `filename` and `content_type` are the client's words."""

    spooled: SpooledFile
    filename: str
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """How a recording is to be accepted.

    Attributes:
        idempotency_key: the same key again gives the same job.
        dedupe: the same bytes again give the job that has them.
        callback_url: told when the job ends.
        owner: whose job it is; each owner gets a fair share of the queue.
        here: run it in this process, past the queue.
        report: told of its stages if it runs in this process.
    """

    idempotency_key: str | None = None
    dedupe: bool = False
    callback_url: str | None = None
    owner: str = ""
    here: bool = False
    report: StageProgress = ignore_progress


@dataclass(frozen=True, slots=True)
class JobState:
    """A job and what its row alone does not say: how many are served before it, while it waits."""

    job: Job
    position: int | None = None


class JobService:
    """
    Args:
        share_recordings: store a recording on arrival, for workers that do not see this machine's spool.
        max_queued: how many jobs may wait or run at once.
        max_queued_per_owner: the same for one owner.
    """

    def __init__(
        self,
        storage: StorageService,
        database: Database,
        durable: DurableEngine,
        speech: SpeechPipeline,
        metrics: Metrics,
        *,
        share_recordings: bool = False,
        max_queued: int = 1000,
        max_queued_per_owner: int = 1000,
    ) -> None:
        self._storage = storage
        self._database = database
        self._durable = durable
        self._speech = speech
        self._metrics = metrics
        self._share_recordings = share_recordings
        self._max_queued = max_queued
        self._max_queued_per_owner = max_queued_per_owner
        self.watch = JobWatch(database)
        self.reports: dict[str, StageProgress] = {}
        self.ensure_running: Callable[[], Awaitable[None]] = _nothing

    async def check_capacity(self, owner: str = "") -> None:
        """Refuse while the queue is full, before a body is read.

        Raises:
            TooManyJobs
        """
        async with self._database.transaction() as session:
            total = await jobs.count_active(session)
            own = await jobs.count_active(session, owner=owner)
        if total >= self._max_queued:
            raise TooManyJobs(
                f"{total} recordings are waiting already (MAX_QUEUED_JOBS). Send this one again in a while."
            )
        if own >= self._max_queued_per_owner:
            raise TooManyJobs(
                f"{own} of your recordings are waiting already (MAX_QUEUED_JOBS_PER_KEY). Send this one again in a "
                "while."
            )

    async def submit(self, upload: ReceivedRecording, options: ProcessOptions, how: Submission = Submission()) -> Job:
        """Accept a recording: after this it is processed exactly once, even if any process dies.

        Raises:
            InvalidAudio: these bytes are no recording.
            InvalidInput: the idempotency key belongs to another request.
            StorageError: it cannot be kept.
            DatabaseUnavailable
        """
        if found := await self._find_same(upload, options, how):
            return found
        try:
            media = await self._speech.probe(upload.spooled.path)
        except InvalidInput:
            self._metrics.ended("refused")
            raise
        job = _new_job(upload, options, how, media.duration_s, await self._database.mark())
        try:
            await (self._share if self._share_recordings else self._keep)(job, upload.spooled, options)
        except IntegrityError:
            # Another request with the same key came first.
            if found := await self._find_same(upload, options, how):
                return found
            raise
        if how.report is not ignore_progress:
            self.reports[job.id] = how.report
        await self._start(job, here=how.here)
        return job

    async def get(self, job_id: str) -> JobState:
        """Raises NotFound."""
        async with self._database.transaction() as session:
            job = await jobs.get_job(session, job_id)
            waits = job.status == JobStatus.QUEUED
            return JobState(job, 1 + await jobs.count_before(session, job) if waits else None)

    async def list(self, *, status: JobStatus | None, limit: int, offset: int) -> tuple[Sequence[Job], int]:
        """A page, newest first, and the number of all."""
        async with self._database.transaction() as session:
            return await jobs.list_jobs(session, status=status, limit=limit, offset=offset)

    async def wait(self, job_id: str) -> Job:
        """The job when it has completed.

        Raises:
            AppError: why it failed, or Conflict if it was cancelled.
        """
        job = (await self.get(job_id)).job
        while job.status not in ENDED:
            await self.watch.change(job)
            job = (await self.get(job_id)).job
        if job.status == JobStatus.CANCELLED:
            raise Conflict("The job was cancelled, or its conversation was deleted while it was processed.")
        if job.status == JobStatus.FAILED:
            raise error_from_json(job.error or {})
        return job

    async def result(self, job: Job) -> tuple[Conversation, dict[str, float]]:
        """The conversation of a job that has completed, with everything, and the seconds each stage took.

        Raises:
            NotFound: the conversation was deleted since.
        """
        async with self._database.transaction() as session:
            row = await conversations.get_conversation(session, job.conversation_id, detailed=True)
        return row, dict(cast("dict[str, float]", (job.result or {}).get("timings_s", {})))

    async def follow(self, job_id: str) -> AsyncGenerator[JobState, None]:
        """The job's state now and whenever it has changed, until it has ended.

        Raises:
            NotFound
        """
        before: tuple[object, ...] | None = None
        while True:
            state = await self.get(job_id)
            job = state.job
            now = (job.status, job.stage, job.progress, state.position)
            if now != before:
                yield state
                before = now
            if job.status in ENDED:
                return
            await self.watch.change(job)

    async def figures(self) -> Sequence[tuple[str, str, int, float]]:
        """Queue, status, number and age in seconds of the oldest of the jobs that wait or run."""
        now = datetime.now(UTC)
        async with self._database.transaction() as session:
            found = await jobs.queue_figures(session)
        return [(queue, status, count, (now - oldest).total_seconds()) for queue, status, count, oldest in found]

    def notify_ended(self, job_id: str) -> None:
        """Wake the callers that wait for a job that has ended in this process."""
        self.reports.pop(job_id, None)
        self.watch.wake(job_id)

    async def cancel(self, job_id: str) -> Job:
        """Stop a job and forget its recording; one that has ended is left as it is.

        Raises:
            NotFound
            Conflict: it has completed or failed.
        """
        async with self._database.transaction() as session:
            job = await jobs.get_job(session, job_id, lock=True)
            if job.status == JobStatus.CANCELLED:
                return job
            if job.status in ENDED:
                raise Conflict(f"The job has {job.status} already; delete its conversation instead.")
            recording = job.recording
            await jobs.cancel(session, job.id, at=datetime.now(UTC))
            locators = await objects.locators_of(session, job.conversation_id)
            await _forget_conversation(session, job.conversation_id)
        await self.ensure_running()
        try:
            await self._durable.cancel(job_id)
        except DatabaseUnavailable as error:
            # Its row says so, and the process that has it or takes it looks there.
            logger.warning("job %s is cancelled, but stays in its queue for now: %s", job_id, error)
        if recording is not None:
            await self._storage.accepted.remove(job_id)
        for locator in locators:
            await self._storage.delete(locator)
        self.notify_ended(job_id)
        return job

    async def retry(self, job_id: str) -> Job:
        """Queue a failed job again.

        Raises:
            NotFound
            Conflict: it has not failed, or its recording is gone.
        """
        async with self._database.transaction() as session:
            job = await jobs.get_job(session, job_id, lock=True)
            if job.status != JobStatus.FAILED:
                raise Conflict(f"The job is {job.status}; only a failed one can be tried again.")
            if job.recording is None:
                raise Conflict("The recording was refused and not kept. Send it again.")
            row = await _conversation_of(session, job)
            row.status, row.error, row.completed_at = ConversationStatus.PROCESSING, None, None
            await jobs.retry(session, job.id)
        await self.ensure_running()
        await self._durable.forget([job_id])
        await self._start(job, here=False)
        return job

    async def _find_same(self, upload: ReceivedRecording, options: ProcessOptions, how: Submission) -> Job | None:
        sha256 = upload.spooled.sha256
        async with self._database.transaction() as session:
            if how.idempotency_key is not None:
                found = await jobs.find_by_key(session, how.owner, how.idempotency_key)
                if found and (found.sha256 != sha256 or found.options != OPTIONS.dump_python(options, mode="json")):
                    raise InvalidInput("This Idempotency-Key was used for another recording or other options.")
                if found:
                    return found
            return await jobs.find_by_bytes(session, how.owner, sha256) if how.dedupe else None

    async def _keep(self, job: Job, spooled: SpooledFile, options: ProcessOptions) -> None:
        """Accept a recording that waits in this machine's spool."""
        await self._storage.accepted.add(spooled, job.id)
        try:
            await self._accept(job, options)
        except BaseException as error:
            if await self._is_unknown(job.id, error):
                await self._storage.accepted.remove(job.id)
            raise

    async def _share(self, job: Job, spooled: SpooledFile, options: ProcessOptions) -> None:
        """Accept a recording that waits as its conversation's object, where every worker finds it."""
        stored = await self._storage.save_audio_file(
            spooled, job.conversation_id, job.filename, content_type=job.content_type, at=job.created_at
        )
        job.recording = stored.locator
        try:
            await self._accept(job, options, stored)
        except BaseException as error:
            if await self._is_unknown(job.id, error):
                await self._storage.delete(stored.locator)
            raise

    async def _accept(self, job: Job, options: ProcessOptions, stored: StoredObject | None = None) -> None:
        conversation = Conversation(
            id=job.conversation_id,
            title=options.title,
            status=ConversationStatus.PROCESSING,
            filename=job.filename,
            recording_url=stored.locator if stored else None,
            engines=self._speech.engines,
            warnings=[*stored.warnings] or None if stored else None,
            created_at=job.created_at,
        )
        async with self._database.transaction() as session:
            session.add(conversation)
            await jobs.accept(session, job)
            if stored:
                await session.flush()
                session.add(object_row(job.conversation_id, stored, job.created_at))

    async def _is_unknown(self, job_id: str, error: BaseException) -> bool:
        """Whether a job was certainly not written. A commit that the database did not answer may still take effect."""
        if isinstance(error, IntegrityError):
            return True
        with CancelScope(shield=True):
            try:
                async with self._database.transaction() as session:
                    known = bool(await jobs.attempts_of(session, [job_id]))
            except DatabaseUnavailable:
                known = False
        if known or isinstance(error, DatabaseUnavailable):
            logger.warning("job %s may have been written although that failed: its recording stays for now", job_id)
            return False
        return True

    async def enqueue(self, job: Job) -> None:
        """Hand a job whose row is written to the durable engine; if that cannot be reached, `requeue_lost` does so."""
        try:
            await self._durable.enqueue(WORKFLOW, job.id, job.queue, priority=job.priority)
        except DatabaseUnavailable as error:
            logger.warning("job %s will be queued later: %s", job.id, error)

    async def _start(self, job: Job, *, here: bool) -> None:
        await self.ensure_running()
        if here:
            await self._durable.run_here(WORKFLOW, job.id)
        else:
            await self.enqueue(job)


async def _nothing() -> None:
    """For services whose caller starts the runner."""


def _new_job(
    upload: ReceivedRecording, options: ProcessOptions, how: Submission, expected_s: float | None, mark: str
) -> Job:
    job_id = f"job_{mark}{uuid4().hex[len(mark) :]}"
    return Job(
        id=job_id,
        conversation_id=f"conv_{uuid4().hex}",
        queue=LONG if (expected_s or 0) >= LONG_FROM_S else SHORT,
        owner=how.owner,
        recording=job_id,
        filename=safe_filename(upload.filename),
        content_type=upload.content_type,
        size_bytes=upload.spooled.size_bytes,
        sha256=upload.spooled.sha256,
        expected_s=expected_s,
        options=OPTIONS.dump_python(options, mode="json"),
        idempotency_key=how.idempotency_key,
        callback_url=how.callback_url,
        created_at=datetime.now(UTC),
    )


async def _conversation_of(session: AsyncSession, job: Job) -> Conversation:
    try:
        return await conversations.get_conversation(session, job.conversation_id, lock=True)
    except NotFound as error:
        raise Conflict("The job's conversation was deleted. Send the recording again.") from error


async def _forget_conversation(session: AsyncSession, conversation_id: str) -> None:
    try:
        await conversations.remove(session, await conversations.get_conversation(session, conversation_id, lock=True))
    except NotFound:
        logger.debug("%s was deleted already", conversation_id)
