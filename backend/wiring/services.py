"""Puts the parts together: the only file that names concrete engines."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from backend.config import Settings
from backend.database.migrate import check_migrated, migrate
from backend.database.session import Database
from backend.domain.addresses import parse_allowance
from backend.observability.metrics import Metrics
from backend.observability.tracing import set_up_tracing
from backend.services.conversations.deletion import DeletionService
from backend.services.conversations.reading import ConversationService
from backend.services.jobs.attempts import Attempts
from backend.services.jobs.durable import DurableEngine
from backend.services.jobs.heartbeat import Heartbeat, this_process
from backend.services.jobs.intake import Intake
from backend.services.jobs.maintenance.announcements import DeliveryQueue
from backend.services.jobs.maintenance.objects import QUEUE as STORAGE
from backend.services.jobs.metrics import QueueMetrics
from backend.services.jobs.queue import JobQueue
from backend.services.jobs.recording import Recordings
from backend.services.jobs.runner import ALL_QUEUES, JobRunner
from backend.services.jobs.schedule.log import ScheduleLog
from backend.services.jobs.schedule.scheduler import Scheduler
from backend.services.jobs.service import JobService
from backend.services.jobs.watch import JobWatch
from backend.services.lifecycle.drain import DrainService
from backend.services.lifecycle.metrics import BacklogMetrics
from backend.services.people.service import PeopleService
from backend.services.processing.service import ProcessingService
from backend.services.reconciliation import ReconciliationService
from backend.services.remote.client import OutboundClient
from backend.services.remote.download import Fetcher
from backend.services.shares import Shares
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.storage import Mover, StorageParts, StorageService
from backend.services.storage.placement.parts import open_parts
from backend.services.uploads.service import UploadService
from backend.services.uploads.sources import Sources
from backend.services.webhooks.service import WebhookService, read_secrets
from backend.wiring.engines import open_speech
from backend.wiring.schedule import Parts, open_periodic_work

logger = logging.getLogger(__name__)


WORKFLOWS_VERSION = "1"
"""Raised whenever the steps of a workflow, their order or what they return change: jobs in flight then start again
instead of resuming from checkpoints of another shape."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a request may need, opened."""

    settings: Settings
    storage: StorageService
    database: Database
    speech: SpeechPipeline
    processing: ProcessingService
    conversations: ConversationService
    people: PeopleService
    metrics: Metrics
    webhooks: WebhookService
    drain: DrainService
    deletes: DeletionService
    reconciliation: ReconciliationService
    intake: Intake
    jobs: JobService
    runner: JobRunner
    scheduler: Scheduler
    schedule: ScheduleLog
    durable: DurableEngine
    uploads: UploadService
    shares: Shares

    @property
    def ready(self) -> bool:
        """Whether requests find what they need: the models, unless those are the workers' business."""
        return self.speech.ready or self.settings.workers == "none"


@asynccontextmanager
async def open_services(
    settings: Settings,
    speech: SpeechPipeline | None = None,
    *,
    parts: StorageParts | None = None,
    listen: Sequence[str] | None = None,
) -> AsyncIterator[Services]:
    """Open storage, database and engines; closed again in reverse order. Work begins with the first job, or when
    `runner.start` is called.

    Args:
        settings: what to open.
        speech: a pipeline to use instead of the configured engines.
        parts: storage to use instead of the configured one.
        listen: queues to take work from; default: all, or only the work on stored objects with WORKERS=none.

    Raises:
        EngineUnavailable: an engine that was asked for by name is not there.
        StorageError: UPLOAD_DIR cannot be written, or S3 is demanded and refuses.
        DatabaseUnavailable: the database does not answer.
    """
    set_up_tracing()
    speech = speech or open_speech(settings)
    async with AsyncExitStack() as stack:
        stored = parts or open_parts(settings.storage)
        storage = await stack.enter_async_context(StorageService(parts=stored))
        database = await _open_database(settings, stack)
        people = PeopleService(database, enabled=settings.known_voices)
        metrics = Metrics()
        metrics.register(stored.metrics)
        processing = ProcessingService(storage, database, speech, people, metrics)
        drain = _open_drain(settings, storage, stored.mover, database, metrics)
        deletes = DeletionService(storage, stored.stores, stored.accepted, database)
        shares = Shares(storage, database, settings.share_limits())
        uploads = UploadService(
            storage,
            stored.resumable,
            stored.stores.direct,
            database,
            shares,
            max_bytes=settings.max_upload_bytes,
            expires_s=settings.upload_expires_s,
        )
        identity = this_process()
        durable = DurableEngine(settings.database_url, executor_id=identity.id, version=WORKFLOWS_VERSION)
        deliveries = DeliveryQueue(durable)
        webhooks = open_webhooks(settings, database, deliveries.add)
        recordings = Recordings(storage, stored.accepted, stored.mover, database)
        attempts = Attempts(recordings, stored.accepted, database, processing, worker_id=identity.id)
        queue, watch = JobQueue(durable), JobWatch(database)
        listen = _default_queues(settings) if listen is None else listen
        heartbeat = Heartbeat(database.url, identity, listen)
        work = Parts(
            stored=stored,
            database=database,
            durable=durable,
            heartbeat=heartbeat,
            attempts=attempts,
            queue=queue,
            watch=watch,
            uploads=uploads,
            webhooks=webhooks,
            deliveries=deliveries,
            drain=drain,
            deletes=deletes,
        )
        periodic = open_periodic_work(settings, work)
        runner = JobRunner(
            durable,
            attempts,
            watch,
            periodic.running,
            periodic.announcements,
            periodic.scheduler,
            heartbeat,
            listen=listen,
            at_once=settings.jobs_at_once,
            poll_s=settings.queue_poll_s,
        )
        stack.callback(watch.close)
        stack.push_async_callback(runner.stop)
        intake = Intake(
            storage,
            stored.accepted,
            database,
            Sources(storage, _open_fetcher(settings), uploads, shares, max_bytes=settings.max_upload_bytes),
            shares,
            webhooks,
            speech,
            metrics,
            runner,
            queue,
            watch,
            share_recordings=settings.workers == "none",
        )
        jobs = JobService(storage, stored.accepted, database, durable, queue, watch, runner)
        metrics.register(periodic.log)
        metrics.register_asking(BacklogMetrics(drain).ask)
        metrics.register_asking(QueueMetrics(jobs).ask)
        yield Services(
            settings=settings,
            storage=storage,
            database=database,
            speech=speech,
            processing=processing,
            conversations=ConversationService(storage, database),
            people=people,
            metrics=metrics,
            webhooks=webhooks,
            drain=drain,
            deletes=deletes,
            reconciliation=_open_reconciliation(stored, database),
            intake=intake,
            jobs=jobs,
            runner=runner,
            scheduler=periodic.scheduler,
            schedule=periodic.log,
            durable=durable,
            uploads=uploads,
            shares=shares,
        )


@dataclass(frozen=True, slots=True)
class StorageTools:
    """What looks after the objects and their rows."""

    reconciliation: ReconciliationService
    drain: DrainService


@asynccontextmanager
async def open_storage_tools(settings: Settings) -> AsyncIterator[StorageTools]:
    """Open storage and database without engines or jobs. Arguments and errors as in `open_services`."""
    async with AsyncExitStack() as stack:
        parts = open_parts(settings.storage)
        storage = await stack.enter_async_context(StorageService(parts=parts))
        database = await _open_database(settings, stack)
        drain = _open_drain(settings, storage, parts.mover, database, Metrics())
        yield StorageTools(_open_reconciliation(parts, database), drain)


async def _open_database(settings: Settings, stack: AsyncExitStack) -> Database:
    if settings.database_url.startswith("sqlite"):
        await migrate(settings.database_url)
    database = Database(settings.database_url)
    stack.push_async_callback(database.close)
    await check_migrated(database)
    return database


def _default_queues(settings: Settings) -> Sequence[str]:
    """Without workers, a process still moves the files on its own disk."""
    return ALL_QUEUES if settings.workers == "embedded" else (STORAGE,)


def _open_reconciliation(parts: StorageParts, database: Database) -> ReconciliationService:
    return ReconciliationService(parts.stores, parts.spool, parts.space, database)


def _open_drain(
    settings: Settings, storage: StorageService, mover: Mover, database: Database, metrics: Metrics
) -> DrainService:
    return DrainService(
        storage,
        mover,
        database,
        metrics,
        concurrency=settings.storage.drain_concurrency,
        max_bytes_per_s=settings.storage.drain_max_bytes_per_s,
    )


def open_webhooks(
    settings: Settings, database: Database, schedule: Callable[[str], Awaitable[object]]
) -> WebhookService:
    """The sender of callbacks; `schedule` makes the attempts for a message."""
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    return WebhookService(
        database,
        _open_outbound(settings),
        secrets=read_secrets(secret),
        default_url=settings.webhook_url,
        timeout_s=settings.webhook_timeout_s,
        schedule=schedule,
    )


def _open_fetcher(settings: Settings) -> Fetcher:
    return Fetcher(
        _open_outbound(settings),
        enabled=settings.ingest_from_url,
        max_bytes=settings.max_upload_bytes,
        stall_timeout_s=settings.upload_stall_timeout_s,
        timeout_s=settings.ingest_timeout_s,
    )


def _open_outbound(settings: Settings) -> OutboundClient:
    return OutboundClient(parse_allowance(settings.outbound_allow_private or ""))
