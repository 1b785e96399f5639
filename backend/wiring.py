"""Puts the parts together: the only file that names concrete engines."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.config import AsrEngine, DiarizationEngine, Settings, SpeechConfig
from backend.database.migrate import check_migrated, migrate
from backend.database.session import Database
from backend.domain.addresses import parse_allowance
from backend.engines.base import Diarizer, Transcriber
from backend.engines.heap import return_large_blocks
from backend.engines.lazy import Lazy
from backend.engines.models import best_whisper_on_disk, find_pyannote, find_whisper, get_embedded
from backend.errors import EngineUnavailable
from backend.services.background import STORAGE, Background
from backend.services.conversations import ConversationService
from backend.services.custody import CustodyService
from backend.services.deletes import DeleteService
from backend.services.drain import DrainService
from backend.services.durable import DurableEngine
from backend.services.fetch import Fetcher
from backend.services.jobs import JobService
from backend.services.metrics import Metrics
from backend.services.outbound import OutboundClient
from backend.services.people import PeopleService
from backend.services.processing import ProcessingService
from backend.services.runner import ALL_QUEUES, JobRunner
from backend.services.speech import SpeechPipeline
from backend.services.storage import StorageService
from backend.services.tracing import set_up_tracing
from backend.services.upload_sweep import UploadSweeper
from backend.services.uploads import UploadService
from backend.services.webhooks import WebhookService, read_secrets
from backend.services.workers import this_process

logger = logging.getLogger(__name__)

DEFAULT_WHISPER = "small"
DEFAULT_PYANNOTE = "community-1"

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
    processing: ProcessingService
    conversations: ConversationService
    people: PeopleService
    metrics: Metrics
    fetcher: Fetcher
    webhooks: WebhookService
    drain: DrainService
    deletes: DeleteService
    custody: CustodyService
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
        EngineUnavailable: an engine that was asked for by name is not there.
        StorageError: UPLOAD_DIR cannot be written, or S3 is demanded and refuses.
        DatabaseUnavailable: the database does not answer.
    """
    set_up_tracing()
    speech = speech or open_speech(settings)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(StorageService(settings.storage))
        database = await _open_database(settings, stack)
        people = PeopleService(database, enabled=settings.known_voices)
        metrics = Metrics()
        metrics.register(storage.figures)
        processing = ProcessingService(storage, database, speech, people, metrics)
        webhooks = open_webhooks(settings, database)
        drain = _open_drain(settings, storage, database, metrics)
        deletes = DeleteService(storage, database)
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
            processing=processing,
            conversations=ConversationService(storage, database),
            people=people,
            metrics=metrics,
            fetcher=_open_fetcher(settings),
            webhooks=webhooks,
            drain=drain,
            deletes=deletes,
            custody=CustodyService(storage, database),
            jobs=jobs,
            runner=runner,
            durable=durable,
            uploads=uploads,
        )


@dataclass(frozen=True, slots=True)
class Keeping:
    """What looks after the objects and their rows."""

    custody: CustodyService
    drain: DrainService


@asynccontextmanager
async def open_keeping(settings: Settings) -> AsyncIterator[Keeping]:
    """Open storage and database without engines or jobs. Arguments and errors as in `open_services`."""
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(StorageService(settings.storage))
        database = await _open_database(settings, stack)
        yield Keeping(CustodyService(storage, database), _open_drain(settings, storage, database, Metrics()))


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


def open_speech(settings: Settings) -> SpeechPipeline:
    """Choose the engines; nothing is loaded yet, but what was asked for by name must be there.

    Raises:
        EngineUnavailable
    """
    return_large_blocks()
    return SpeechPipeline(
        _choose_transcriber(settings.speech),
        _choose_diarizer(settings.speech),
        max_audio_s=settings.max_audio_seconds,
        max_decode_s=settings.max_decode_seconds,
        spool_dir=Path(settings.storage.upload_dir) / ".spool",
        keep_voices=settings.known_voices,
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


def _choose_transcriber(config: SpeechConfig) -> Lazy[Transcriber]:
    if config.asr_engine == AsrEngine.MOONSHINE:
        return _moonshine(config)
    if config.asr_engine == AsrEngine.FASTER_WHISPER:
        model = config.asr_model or best_whisper_on_disk(config.models_dir) or DEFAULT_WHISPER
        if find_whisper(model, config.models_dir) is None:
            raise EngineUnavailable(
                f"ASR_ENGINE=faster-whisper, but the Whisper model {model!r} is not on this disk: fetch it with "
                f"`aperta models pull {model}`, or set ASR_MODEL to a directory that holds one."
            )
        return _whisper(config, model)
    return _choose_transcriber_on_disk(config)


def _choose_transcriber_on_disk(config: SpeechConfig) -> Lazy[Transcriber]:
    """The most accurate transcriber that needs no download."""
    if config.asr_model:
        found = config.asr_model if find_whisper(config.asr_model, config.models_dir) else None
        if found is None:
            logger.warning(
                "ASR_MODEL=%s is not on this disk (`aperta models pull %s` fetches it): using the built-in Moonshine",
                config.asr_model,
                config.asr_model,
            )
    else:
        found = best_whisper_on_disk(config.models_dir)
    return _whisper(config, found) if found else _moonshine(config)


def _choose_diarizer(config: SpeechConfig) -> Lazy[Diarizer] | None:
    if config.diarization_engine == DiarizationEngine.NONE:
        return None
    model = config.diarization_model or DEFAULT_PYANNOTE
    if config.diarization_engine == DiarizationEngine.PYANNOTE:
        return _pyannote(config, model)
    there = find_pyannote(model, config.models_dir) and _pyannote_installed()
    if config.diarization_engine == DiarizationEngine.AUTO and there:
        return _pyannote(config, model)
    return _embedded_diarizer(config)


def _moonshine(config: SpeechConfig) -> Lazy[Transcriber]:
    from backend.engines.moonshine_engine import MoonshineTranscriber

    get_embedded()
    return Lazy(MoonshineTranscriber.name, lambda: MoonshineTranscriber(threads(config)))


def _whisper(config: SpeechConfig, model: str) -> Lazy[Transcriber]:
    from backend.engines.faster_whisper_engine import FasterWhisperTranscriber

    def load() -> Transcriber:
        return FasterWhisperTranscriber(
            model,
            models_dir=config.models_dir,
            device=config.asr_device,
            compute_type=config.asr_compute_type,
            threads=threads(config),
            batch_size=config.asr_batch_size,
        )

    return Lazy(f"faster-whisper {Path(model).name}", load)


def _pyannote(config: SpeechConfig, model: str) -> Lazy[Diarizer]:
    from backend.engines.pyannote_engine import PyannoteDiarizer

    if not _pyannote_installed():
        raise EngineUnavailable(
            "DIARIZATION_ENGINE=pyannote, but pyannote.audio is not installed: "
            "run `pip install 'aperta-server[pyannote]'`."
        )
    if find_pyannote(model, config.models_dir) is None:
        raise EngineUnavailable(
            f"DIARIZATION_ENGINE=pyannote, but its model {model!r} is not on this disk: accept its licence on the hub, "
            f"set HF_TOKEN and run `aperta models pull {model}`, or set DIARIZATION_MODEL to a directory that holds it."
        )

    def load() -> Diarizer:
        return PyannoteDiarizer(
            model,
            token=config.hf_token,
            models_dir=config.models_dir,
            device=config.diarization_device,
            threads=threads(config),
        )

    return Lazy(f"pyannote {Path(model).name}", load)


def _pyannote_installed() -> bool:
    # The parent first: asking for a part of a package that is not there raises.
    return importlib.util.find_spec("pyannote") is not None and importlib.util.find_spec("pyannote.audio") is not None


def _embedded_diarizer(config: SpeechConfig) -> Lazy[Diarizer]:
    from backend.engines.community1 import Community1Diarizer

    folder = Path(config.diarization_model) if config.diarization_model else None
    models_dir = folder if folder and (folder / "segmentation.ort").is_file() else None
    return Lazy(Community1Diarizer.name, lambda: Community1Diarizer(models_dir=models_dir, threads=threads(config)))


def threads(config: SpeechConfig) -> int:
    """THREADS, or every core this process may use."""
    return config.threads or len(os.sched_getaffinity(0))
