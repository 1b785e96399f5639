"""Puts the parts together: the only file that names concrete engines."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache

import anyio.to_thread

from backend.config import Settings
from backend.database.migrate import check_migrated, migrate
from backend.database.session import Database
from backend.domain.addresses import parse_allowance
from backend.engines.audio.confinement import Confinement, Measures
from backend.engines.audio.process import measure_confinement
from backend.observability.metrics import Metrics
from backend.observability.tracing import set_up_tracing
from backend.services.conversations.deletion import DeletionService
from backend.services.conversations.reading import ConversationService
from backend.services.jobs.background import STORAGE, Background
from backend.services.jobs.durable import DurableEngine
from backend.services.jobs.heartbeat import this_process
from backend.services.jobs.runner import ALL_QUEUES, JobRunner
from backend.services.jobs.service import JobService
from backend.services.lifecycle.drain import DrainService
from backend.services.people.service import PeopleService
from backend.services.processing.service import ProcessingService
from backend.services.reconciliation import ReconciliationService
from backend.services.remote.client import OutboundClient
from backend.services.remote.download import Fetcher
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.storage import StorageService
from backend.services.uploads.expiry import UploadSweeper
from backend.services.uploads.service import UploadService
from backend.services.webhooks.service import WebhookService, read_secrets
from backend.wiring.engines import open_speech

logger = logging.getLogger(__name__)


WORKFLOWS_VERSION = "1"
"""Raised whenever the steps of a workflow, their order or what they return change: jobs in flight then begin anew
instead of going on with checkpoints of another shape."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a request may need, opened."""

    settings: Settings
    storage: StorageService
    database: Database
    speech: SpeechPipeline
    confinement: Measures
    processing: ProcessingService
    conversations: ConversationService
    people: PeopleService
    metrics: Metrics
    fetcher: Fetcher
    webhooks: WebhookService
    drain: DrainService
    deletes: DeletionService
    reconciliation: ReconciliationService
    jobs: JobService
    runner: JobRunner
    durable: DurableEngine
    uploads: UploadService

    @property
    def ready(self) -> bool:
        """Whether requests find what they need: the models, unless those are the workers' business."""
        return self.speech.ready or self.settings.workers == "none"


@asynccontextmanager
async def open_services(
    settings: Settings, speech: SpeechPipeline | None = None, *, listen: Sequence[str] | None = None
) -> AsyncIterator[Services]:
    """Open storage, database and engines; closed again in reverse order. Work begins with the first job, or when
    `runner.start` is called.

    Args:
        settings: what to open.
        speech: a pipeline to use instead of the configured engines.
        listen: queues to take work from; default: all, or only the work on stored objects with WORKERS=none.

    Raises:
        EngineUnavailable: an engine that was asked for by name is not there, or decoders cannot be confined so.
        StorageError: UPLOAD_DIR cannot be written, or S3 is demanded and refuses.
        DatabaseUnavailable: the database does not answer.
    """
    set_up_tracing()
    speech = speech or open_speech(settings)
    confinement = await anyio.to_thread.run_sync(_measure_confinement, settings.decoder_confinement)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(StorageService(settings.storage))
        database = await _open_database(settings, stack)
        people = PeopleService(database, enabled=settings.known_voices)
        metrics = Metrics()
        metrics.register(storage.metrics)
        processing = ProcessingService(storage, database, speech, people, metrics)
        webhooks = open_webhooks(settings, database)
        drain = _open_drain(settings, storage, database, metrics)
        deletes = DeletionService(storage, database)
        expires_s = settings.upload_expires_s
        uploads = UploadService(storage, database, max_bytes=settings.max_upload_bytes, expires_s=expires_s)
        await stack.enter_async_context(UploadSweeper(uploads, storage, database, expires_s=expires_s))
        identity = this_process()
        durable = DurableEngine(settings.database_url, executor_id=identity.id, version=WORKFLOWS_VERSION)
        jobs = JobService(
            storage,
            database,
            durable,
            speech,
            metrics,
            share_recordings=settings.workers == "none",
            max_queued=settings.max_queued_jobs,
            max_queued_per_owner=settings.max_queued_jobs_per_key,
        )
        if listen is None:
            # Without workers it still moves the files that are on its own disk.
            listen = ALL_QUEUES if settings.workers == "embedded" else (STORAGE,)
        runner = JobRunner(
            storage,
            database,
            durable,
            processing,
            jobs,
            Background(storage, database, durable, webhooks, drain, deletes, host=identity.host),
            identity,
            listen=listen,
            at_once=settings.jobs_at_once,
            poll_s=settings.queue_poll_s,
            keep_days=settings.jobs_keep_days,
        )
        await stack.enter_async_context(jobs.watch)
        jobs.ensure_running = runner.start
        stack.push_async_callback(runner.stop)
        yield Services(
            settings=settings,
            storage=storage,
            database=database,
            speech=speech,
            confinement=confinement,
            processing=processing,
            conversations=ConversationService(storage, database),
            people=people,
            metrics=metrics,
            fetcher=_open_fetcher(settings),
            webhooks=webhooks,
            drain=drain,
            deletes=deletes,
            reconciliation=ReconciliationService(storage, database),
            jobs=jobs,
            runner=runner,
            durable=durable,
            uploads=uploads,
        )


@cache
def _measure_confinement(confinement: Confinement) -> Measures:
    """Once per process: the machine stays what it is."""
    measures = measure_confinement(confinement)
    logger.info("confinement of decoders (%s): %s", confinement, measures)
    return measures


@dataclass(frozen=True, slots=True)
class StorageTools:
    """What looks after the objects and their rows."""

    reconciliation: ReconciliationService
    drain: DrainService


@asynccontextmanager
async def open_storage_tools(settings: Settings) -> AsyncIterator[StorageTools]:
    """Open storage and database without engines or jobs. Arguments and errors as in `open_services`."""
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(StorageService(settings.storage))
        database = await _open_database(settings, stack)
        yield StorageTools(
            ReconciliationService(storage, database), _open_drain(settings, storage, database, Metrics())
        )


async def _open_database(settings: Settings, stack: AsyncExitStack) -> Database:
    if settings.database_url.startswith("sqlite"):
        await migrate(settings.database_url)
    database = Database(settings.database_url)
    stack.push_async_callback(database.close)
    await check_migrated(database)
    return database


def _open_drain(settings: Settings, storage: StorageService, database: Database, metrics: Metrics) -> DrainService:
    return DrainService(
        storage,
        database,
        metrics,
        concurrency=settings.storage.drain_concurrency,
        max_bytes_per_s=settings.storage.drain_max_bytes_per_s,
    )


def open_webhooks(settings: Settings, database: Database) -> WebhookService:
    """The sender of callbacks; whoever runs jobs sets its `schedule`."""
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    return WebhookService(
        database,
        _open_outbound(settings),
        secrets=read_secrets(secret),
        default_url=settings.webhook_url,
        timeout_s=settings.webhook_timeout_s,
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
