"""Puts the table of periodic work and the work itself together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from backend.config import Settings
from backend.database.session import Database
from backend.domain.lifecycle import UNANNOUNCED_JOBS
from backend.services.conversations.deletion import DeletionService
from backend.services.jobs.attempts import Attempts
from backend.services.jobs.durable.engine import DurableEngine
from backend.services.jobs.heartbeat import Heartbeat
from backend.services.jobs.maintenance import announcements as webhook_work
from backend.services.jobs.maintenance import objects as object_work
from backend.services.jobs.maintenance.announcements import Announcements, DeliveryQueue
from backend.services.jobs.maintenance.ended import EndedJobs
from backend.services.jobs.maintenance.fleet import Fleet
from backend.services.jobs.maintenance.objects import ObjectMaintenance
from backend.services.jobs.maintenance.recovery import JobRecovery
from backend.services.jobs.queue import JobQueue
from backend.services.jobs.running import RunningJobs
from backend.services.jobs.schedule.log import IDLE, Outcome, ScheduleLog, Work
from backend.services.jobs.schedule.scheduler import Scheduler
from backend.services.jobs.schedule.table import Entry, Kind, open_schedule
from backend.services.jobs.watch import JobWatch
from backend.services.lifecycle.drain import DrainService
from backend.services.storage import StorageParts
from backend.services.uploads.expiry import UploadSweeper
from backend.services.uploads.service import UploadService
from backend.services.webhooks.service import WebhookService


@dataclass(frozen=True, slots=True)
class Parts:
    """What the work is made of."""

    stored: StorageParts
    database: Database
    durable: DurableEngine
    heartbeat: Heartbeat
    attempts: Attempts
    queue: JobQueue
    watch: JobWatch
    uploads: UploadService
    webhooks: WebhookService
    deliveries: DeliveryQueue
    drain: DrainService
    deletes: DeletionService


@dataclass(frozen=True, slots=True)
class PeriodicWork:
    """The scheduler, and what the runner of jobs shares with it."""

    scheduler: Scheduler
    log: ScheduleLog
    running: RunningJobs
    announcements: Announcements


def open_periodic_work(settings: Settings, parts: Parts) -> PeriodicWork:
    """Make the scheduler and register the workflows that it queues. Nothing runs before the scheduler is started."""
    schedule = open_schedule(upload_expires_s=settings.upload_expires_s, jobs_keep_days=settings.jobs_keep_days)
    log = ScheduleLog(parts.database, parts.heartbeat.identity)
    fleet = Fleet(parts.database, parts.durable, parts.heartbeat, log)
    running = RunningJobs(parts.database)
    announcements = _open_announcements(parts)
    objects = _open_objects(schedule, parts, fleet, log)
    recovery = _open_recovery(schedule, parts, fleet)
    work: Mapping[Kind, Work] = {
        Kind.RUNNING_JOBS: running.watch,
        Kind.JOB_WATCH: parts.watch.look,
        Kind.FLEET: fleet.adapt,
        **_recovery_work(recovery),
        **_sweeps(schedule, parts),
        Kind.WEBHOOKS: announcements.announce_missed,
        Kind.DRAIN: objects.queue_drain,
        Kind.DELETES: objects.queue_deletes,
        Kind.QUEUES: objects.forget_queues,
    }
    scheduler = Scheduler(schedule, work, log, lambda: fleet.size)
    running.on_first = partial(scheduler.hurry, Kind.RUNNING_JOBS)
    parts.watch.on_first = partial(scheduler.hurry, Kind.JOB_WATCH)
    recovery.on_death = partial(scheduler.hurry, Kind.LOST_JOBS, Kind.LOST_WORKFLOWS)
    return PeriodicWork(scheduler, log, running, announcements)


def _open_announcements(parts: Parts) -> Announcements:
    announcements = Announcements(parts.database, parts.webhooks, parts.deliveries, missed=UNANNOUNCED_JOBS)
    parts.durable.register(webhook_work.WORKFLOW, announcements.deliver)
    return announcements


def _open_objects(schedule: Mapping[Kind, Entry], parts: Parts, fleet: Fleet, log: ScheduleLog) -> ObjectMaintenance:
    objects = ObjectMaintenance(
        parts.stored.breaker,
        parts.durable,
        parts.drain,
        parts.deletes,
        fleet,
        log,
        host=parts.heartbeat.identity.host,
        drain_entry=schedule[Kind.DRAIN],
        deletes_entry=schedule[Kind.DELETES],
    )
    parts.durable.register(object_work.DRAIN, objects.run_drain)
    parts.durable.register(object_work.DELETE, objects.run_deletes)
    return objects


def _open_recovery(schedule: Mapping[Kind, Entry], parts: Parts, fleet: Fleet) -> JobRecovery:
    return JobRecovery(
        parts.database,
        parts.durable,
        parts.attempts,
        parts.queue,
        fleet,
        host=parts.heartbeat.identity.host,
        unqueued=schedule[Kind.LOST_JOBS].kept,
    )


def _recovery_work(recovery: JobRecovery) -> Mapping[Kind, Work]:
    return {
        Kind.DEAD_PROCESSES: recovery.take_over,
        Kind.LOST_JOBS: recovery.requeue_lost,
        Kind.LOST_WORKFLOWS: recovery.recover_workflows,
    }


def _sweeps(schedule: Mapping[Kind, Entry], parts: Parts) -> Mapping[Kind, Work]:
    ended = EndedJobs(
        parts.stored.accepted,
        parts.database,
        parts.durable,
        ended=schedule[Kind.ENDED_JOBS].kept,
        recordings=schedule[Kind.ACCEPTED_RECORDINGS].kept,
    )
    uploads = UploadSweeper(
        parts.uploads, parts.stored.resumable, parts.database, retention=schedule[Kind.UPLOADS].kept
    )
    return {
        Kind.ENDED_JOBS: ended.forget,
        Kind.ACCEPTED_RECORDINGS: ended.sweep_recordings,
        Kind.SPOOL: _counted("files", parts.stored.spool.sweep),
        Kind.UPLOADS: _counted("uploads", uploads.sweep),
    }


def _counted(what: str, sweep: Callable[[], Awaitable[int]]) -> Work:
    async def work() -> Outcome:
        count = await sweep()
        return Outcome({what: count}) if count else IDLE

    return work
