"""The way in: a recording is checked, written as a job, and only then queued.

An accepted recording is a file in the spool (or a stored object, for workers on other machines), a row of a job and a
row of a conversation. `service.py` follows and ends jobs; `runner.py` runs them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import uuid4

from anyio import CancelScope
from sqlalchemy.exc import IntegrityError

from backend.database import jobs, objects
from backend.database.models import Conversation, Job
from backend.database.session import Database
from backend.domain.filenames import safe_filename
from backend.domain.states.conversations import ConversationStatus
from backend.errors import DatabaseUnavailable, InvalidInput
from backend.observability.metrics import Metrics
from backend.services.jobs.queue import JobQueue, queue_for
from backend.services.jobs.runner import JobRunner
from backend.services.jobs.views import JobView, view_of
from backend.services.jobs.watch import JobWatch
from backend.services.processing.service import OPTIONS, ProcessOptions
from backend.services.shares import Shares
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.speech.values import StageProgress, ignore_progress
from backend.services.storage import SpooledFile, StorageService, StoredObject
from backend.services.storage.spool.accepted import AcceptedRecordings
from backend.services.uploads.sources import ReceivedRecording, Source, Sources
from backend.services.webhooks.service import WebhookService

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """How a recording is to be accepted.

    Attributes:
        idempotency_key: the same key again gives the same job.
        dedupe: the same bytes again give the job that has them.
        callback_url: called when the job ends; None: the configured one.
        owner: whose job it is; each owner gets a fair share of the queue.
        here: run it in this process, past the queue and its limits; no webhook is called, because the caller waits.
        report: called at its stages if it runs in this process.
    """

    idempotency_key: str | None = None
    dedupe: bool = False
    callback_url: str | None = None
    owner: str = ""
    here: bool = False
    report: StageProgress = ignore_progress


@dataclass(frozen=True, slots=True)
class Order:
    """Which recording is meant, what to do with it, and how to accept it."""

    source: Source
    options: ProcessOptions
    how: Submission = field(default_factory=Submission)


class Intake:
    """The only way in for a recording. Waiting for its job is the matter of `JobService`.

    Args:
        shares: how many jobs one owner may have.
        share_recordings: store a recording on arrival, for workers that do not see this machine's spool.
    """

    def __init__(
        self,
        storage: StorageService,
        accepted: AcceptedRecordings,
        database: Database,
        sources: Sources,
        shares: Shares,
        webhooks: WebhookService,
        speech: SpeechPipeline,
        metrics: Metrics,
        runner: JobRunner,
        queue: JobQueue,
        watch: JobWatch,
        *,
        share_recordings: bool = False,
    ) -> None:
        self._storage = storage
        self._accepted = accepted
        self._database = database
        self._sources = sources
        self._shares = shares
        self._webhooks = webhooks
        self._speech = speech
        self._metrics = metrics
        self._runner = runner
        self._queue = queue
        self._watch = watch
        self._share_recordings = share_recordings

    async def accept(self, source: Source, options: ProcessOptions, how: Submission = Submission()) -> JobView:
        """Accept a recording: from then on it is processed exactly once, even if this process dies.

        Raises:
            TooManyJobs: the queue is full; raised before any of the recording is read.
            InvalidAudio: these bytes are no recording.
            InvalidInput: the callback URL cannot be used, the idempotency key belongs to another request, or no model
                on this disk does what is asked for.
            StorageError: the recording cannot be stored.
            DatabaseUnavailable
            AppError: as `Sources.open`.
        """
        if not how.here:
            await self._shares.check_jobs(how.owner)
        return await self._take(Order(source, options, how))

    async def accept_form(
        self,
        file: AsyncIterator[bytes],
        read_order: Callable[[SpooledFile], Order],
        *,
        owner: str = "",
        size_bytes: int | None = None,
    ) -> JobView:
        """Accept the recording of a form that is still arriving.

        Args:
            file: the form's file; empty if the form names another source.
            read_order: called when `file` is in the spool. A form's fields may follow its file, and are known then.
            owner: whose job it is, as in the order.
            size_bytes: the size that the client announced.

        Raises:
            AppError: as `accept`.
        """
        await self._shares.check_jobs(owner)
        async with self._sources.spool(file, size_bytes, owner) as spooled:
            return await self._take(read_order(spooled))

    async def _take(self, order: Order) -> JobView:
        how = order.how
        if not how.here:
            how = replace(how, callback_url=await self._webhooks.callback_for(how.callback_url))
        async with self._sources.open(order.source, how.owner) as received:
            return await self._submit(received, order.options, how)

    async def _submit(self, upload: ReceivedRecording, options: ProcessOptions, how: Submission) -> JobView:
        if found := await self._find_same(upload, options, how):
            return view_of(found)
        try:
            if not self._share_recordings:  # else workers have the models, and this process may have none
                await self._speech.check(options.speech.transcribe)
            media = await self._speech.probe(upload.spooled.path)
        except InvalidInput:
            self._metrics.ended("refused")
            raise
        job = _new_job(upload, options, how, media.duration_s, await self._database.mark())
        try:
            await (self._share if self._share_recordings else self._keep)(job, upload.spooled, options)
        except IntegrityError:
            # Another request came first with the same key.
            if found := await self._find_same(upload, options, how):
                return view_of(found)
            raise
        if how.report is not ignore_progress:
            self._watch.reports[job.id] = how.report
        await self._runner.start()
        await self._queue.add(job, here=how.here)
        return view_of(job)

    async def _find_same(self, upload: ReceivedRecording, options: ProcessOptions, how: Submission) -> Job | None:
        sha256 = upload.spooled.sha256
        async with self._database.transaction() as session:
            if how.idempotency_key is not None:
                found = await jobs.find_by_key(session, how.owner, how.idempotency_key)
                if found and (found.sha256 != sha256 or OPTIONS.validate_python(found.options) != options):
                    raise InvalidInput("This Idempotency-Key was used for another recording or other options.")
                if found:
                    return found
            return await jobs.find_by_bytes(session, how.owner, sha256) if how.dedupe else None

    async def _keep(self, job: Job, spooled: SpooledFile, options: ProcessOptions) -> None:
        """Accept a recording that waits in this machine's spool."""
        await self._accepted.add(spooled, job.id)
        try:
            await self._write(job, options)
        except BaseException as error:
            if await self._is_unknown(job.id, error):
                await self._accepted.remove(job.id)
            raise

    async def _share(self, job: Job, spooled: SpooledFile, options: ProcessOptions) -> None:
        """Accept a recording that waits as its conversation's object, where every worker finds it."""
        stored = await self._storage.save_audio_file(
            spooled, job.conversation_id, job.filename, content_type=job.content_type, at=job.created_at
        )
        job.recording = stored.locator
        try:
            await self._write(job, options, stored)
        except BaseException as error:
            if await self._is_unknown(job.id, error):
                await self._storage.delete(stored.locator)
            raise

    async def _write(self, job: Job, options: ProcessOptions, stored: StoredObject | None = None) -> None:
        conversation = Conversation(
            id=job.conversation_id,
            title=options.title,
            status=ConversationStatus.PROCESSING,
            filename=job.filename,
            recording_url=stored.locator if stored else None,
            engines=self._speech.engines_for(options.speech.transcribe),
            warnings=[*stored.warnings] or None if stored else None,
            created_at=job.created_at,
        )
        async with self._database.transaction() as session:
            session.add(conversation)
            await jobs.accept(session, job)
            if stored:
                await session.flush()
                session.add(objects.row_of(stored, job.conversation_id, job.created_at))

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


def _new_job(
    upload: ReceivedRecording, options: ProcessOptions, how: Submission, expected_s: float | None, mark: str
) -> Job:
    job_id = f"job_{mark}{uuid4().hex[len(mark) :]}"
    return Job(
        id=job_id,
        conversation_id=f"conv_{uuid4().hex}",
        queue=queue_for(expected_s),
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
