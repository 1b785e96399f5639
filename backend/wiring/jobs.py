"""Puts together what accepts and runs jobs, on top of what does its work without them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from backend.config import Settings
from backend.database.session import Database
from backend.domain.access.addresses import parse_allowance
from backend.observability.metrics import Metrics
from backend.services.conversations.deletion import DeletionService
from backend.services.jobs.attempts import Attempts
from backend.services.jobs.durable.engine import DurableEngine
from backend.services.jobs.heartbeat import Heartbeat, this_process
from backend.services.jobs.intake import Intake
from backend.services.jobs.maintenance.announcements import DeliveryQueue
from backend.services.jobs.maintenance.objects import QUEUE as STORAGE
from backend.services.jobs.metrics import QueueMetrics
from backend.services.jobs.queue import JobQueue
from backend.services.jobs.recording import Recordings
from backend.services.jobs.runner import ALL_QUEUES, JobRunner
from backend.services.jobs.service import JobService
from backend.services.jobs.watch import JobWatch
from backend.services.lifecycle.drain import DrainService
from backend.services.people.service import PeopleService
from backend.services.processing.service import ProcessingService
from backend.services.remote.client import OutboundClient
from backend.services.remote.download import Fetcher
from backend.services.shares import Shares
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.storage import StorageParts, StorageService
from backend.services.uploads.service import UploadService
from backend.services.uploads.sources import Sources
from backend.services.webhooks.service import WebhookService, read_secrets
from backend.wiring.schedule import Parts, PeriodicWork, open_periodic_work

WORKFLOWS_VERSION = "3"
"""Raised whenever the steps of a workflow, their order or what they return change: jobs in flight then start again
instead of resuming from checkpoints of another shape."""


@dataclass(frozen=True, slots=True)
class Core:
    """What does its work without jobs, and what jobs are built from."""

    settings: Settings
    stored: StorageParts
    storage: StorageService
    database: Database
    speech: SpeechPipeline
    metrics: Metrics
    people: PeopleService
    processing: ProcessingService
    drain: DrainService
    deletes: DeletionService
    shares: Shares
    uploads: UploadService


@dataclass(frozen=True, slots=True)
class Jobs:
    """What accepts jobs, runs them and answers for them."""

    intake: Intake
    service: JobService
    runner: JobRunner
    periodic: PeriodicWork
    durable: DurableEngine
    webhooks: WebhookService


def open_jobs(core: Core, listen: Sequence[str] | None, stack: AsyncExitStack) -> Jobs:
    """Put the parts together. Nothing runs before the runner is started; the stack stops it.

    Args:
        core: what jobs are built from.
        listen: as for `open_services`.
        stack: ends with the services.
    """
    settings, stored, database = core.settings, core.stored, core.database
    identity = this_process()
    durable = DurableEngine(settings.database_url, executor_id=identity.id, version=WORKFLOWS_VERSION)
    deliveries = DeliveryQueue(durable)
    webhooks = open_webhooks(settings, database, deliveries.add)
    recordings = Recordings(core.storage, stored.accepted, stored.mover, database)
    attempts = Attempts(recordings, stored.accepted, database, core.processing, worker_id=identity.id)
    queue, watch = JobQueue(durable), JobWatch(database)
    listen = _default_queues(settings) if listen is None else listen
    parts = Parts(
        stored=stored,
        database=database,
        durable=durable,
        heartbeat=Heartbeat(database.url, identity, listen),
        attempts=attempts,
        queue=queue,
        watch=watch,
        uploads=core.uploads,
        webhooks=webhooks,
        deliveries=deliveries,
        drain=core.drain,
        deletes=core.deletes,
    )
    periodic = open_periodic_work(settings, parts)
    runner = _open_runner(settings, parts, periodic, listen)
    stack.callback(watch.close)
    stack.push_async_callback(runner.stop)
    service = JobService(core.storage, stored.accepted, database, durable, queue, watch, runner)
    core.metrics.register(periodic.log)
    core.metrics.register_asking(QueueMetrics(service).ask)
    return Jobs(_open_intake(core, webhooks, runner, queue, watch), service, runner, periodic, durable, webhooks)


def _open_runner(settings: Settings, parts: Parts, periodic: PeriodicWork, listen: Sequence[str]) -> JobRunner:
    return JobRunner(
        parts.durable,
        parts.attempts,
        parts.watch,
        periodic.running,
        periodic.announcements,
        periodic.scheduler,
        parts.heartbeat,
        listen=listen,
        at_once=settings.jobs_at_once,
        poll_s=settings.queue_poll_s,
    )


def _open_intake(core: Core, webhooks: WebhookService, runner: JobRunner, queue: JobQueue, watch: JobWatch) -> Intake:
    settings = core.settings
    return Intake(
        core.storage,
        core.stored.accepted,
        core.database,
        Sources(core.storage, _open_fetcher(settings), core.uploads, core.shares, max_bytes=settings.max_upload_bytes),
        core.shares,
        webhooks,
        core.speech,
        core.metrics,
        runner,
        queue,
        watch,
        share_recordings=settings.workers == "none",
    )


def _default_queues(settings: Settings) -> Sequence[str]:
    """Without workers, a process still moves the files on its own disk."""
    return ALL_QUEUES if settings.workers == "embedded" else (STORAGE,)


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
