"""Puts the parts together: the only file that names concrete engines."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import anyio.to_thread

from backend.config import Settings
from backend.database.migrate import check_migrated, migrate
from backend.database.session import Database
from backend.engines.audio.confinement import Confinement, Measures
from backend.engines.audio.process import measure_confinement
from backend.observability.metrics import Metrics
from backend.observability.tracing import set_up_tracing
from backend.permissions import close_folder
from backend.services.conversations.deletion import DeletionService
from backend.services.conversations.reading import ConversationService
from backend.services.jobs.durable.engine import DurableEngine
from backend.services.jobs.intake import Intake
from backend.services.jobs.runner import JobRunner
from backend.services.jobs.schedule.log import ScheduleLog
from backend.services.jobs.schedule.scheduler import Scheduler
from backend.services.jobs.service import JobService
from backend.services.lifecycle.drain import DrainService
from backend.services.lifecycle.metrics import BacklogMetrics
from backend.services.people.service import PeopleService
from backend.services.processing.service import ProcessingService
from backend.services.reconciliation import ReconciliationService
from backend.services.shares import Shares
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.storage import Mover, StorageParts, StorageService
from backend.services.storage.keys import made_here
from backend.services.storage.placement.parts import open_parts
from backend.services.uploads.service import UploadService
from backend.services.webhooks.service import WebhookService
from backend.wiring.engines import open_speech
from backend.wiring.jobs import Core, open_jobs

logger = logging.getLogger(__name__)


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
    webhooks: WebhookService
    drain: DrainService
    deletes: DeletionService
    shares: Shares
    reconciliation: ReconciliationService
    intake: Intake
    jobs: JobService
    runner: JobRunner
    scheduler: Scheduler
    schedule: ScheduleLog
    durable: DurableEngine
    uploads: UploadService

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
        EngineUnavailable: an engine that was asked for by name is not there, or decoders cannot be confined so.
        StorageError: UPLOAD_DIR cannot be written, or S3 is demanded and refuses.
        DatabaseUnavailable: the database does not answer.
    """
    set_up_tracing()
    speech = speech or open_speech(settings)
    confinement = await anyio.to_thread.run_sync(_measure_confinement, settings.decoder_confinement)
    async with AsyncExitStack() as stack:
        core = await _open_core(settings, parts or open_parts(settings.storage), speech, stack)
        jobs = open_jobs(core, listen, stack)
        core.metrics.register_asking(BacklogMetrics(core.drain).ask)
        yield Services(
            settings=settings,
            storage=core.storage,
            database=core.database,
            speech=speech,
            confinement=confinement,
            processing=core.processing,
            conversations=ConversationService(core.storage, core.database),
            people=core.people,
            metrics=core.metrics,
            webhooks=jobs.webhooks,
            drain=core.drain,
            deletes=core.deletes,
            shares=core.shares,
            reconciliation=_open_reconciliation(core.stored, core.database),
            intake=jobs.intake,
            jobs=jobs.service,
            runner=jobs.runner,
            scheduler=jobs.periodic.scheduler,
            schedule=jobs.periodic.log,
            durable=jobs.durable,
            uploads=core.uploads,
        )


async def _open_core(settings: Settings, stored: StorageParts, speech: SpeechPipeline, stack: AsyncExitStack) -> Core:
    """Open what does its work without jobs."""
    storage = await _open_storage(settings, stored, stack)
    database = await _open_database(settings, stack)
    people = PeopleService(database, enabled=settings.known_voices)
    metrics = Metrics()
    metrics.register(stored.metrics)
    shares = Shares(storage, database, settings.share_limits())
    return Core(
        settings=settings,
        stored=stored,
        storage=storage,
        database=database,
        speech=speech,
        metrics=metrics,
        people=people,
        processing=ProcessingService(storage, database, speech, people, metrics),
        drain=_open_drain(settings, storage, stored.mover, database, metrics),
        deletes=DeletionService(storage, stored.stores, stored.accepted, database),
        shares=shares,
        uploads=UploadService(
            storage,
            stored.resumable,
            stored.stores.direct,
            database,
            shares,
            max_bytes=settings.max_upload_bytes,
            expires_s=settings.upload_expires_s,
        ),
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
        parts = open_parts(settings.storage)
        storage = await _open_storage(settings, parts, stack)
        database = await _open_database(settings, stack)
        drain = _open_drain(settings, storage, parts.mover, database, Metrics())
        yield StorageTools(_open_reconciliation(parts, database), drain)


async def _open_storage(settings: Settings, parts: StorageParts, stack: AsyncExitStack) -> StorageService:
    await anyio.to_thread.run_sync(close_folder, Path(settings.storage.upload_dir), made_here)
    return await stack.enter_async_context(StorageService(parts=parts))


async def _open_database(settings: Settings, stack: AsyncExitStack) -> Database:
    if settings.database_url.startswith("sqlite"):
        await migrate(settings.database_url)
    database = Database(settings.database_url)
    stack.push_async_callback(database.close)
    await check_migrated(database)
    return database


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
