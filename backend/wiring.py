"""Puts the parts together: the only file that names concrete engines."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.config import AsrEngine, DiarizationEngine, Settings, SpeechConfig
from backend.database.migrate import check_migrated, migrate
from backend.database.session import Database
from backend.engines.base import Diarizer, Transcriber
from backend.engines.heap import return_large_blocks
from backend.engines.lazy import Lazy
from backend.engines.models import best_whisper_on_disk, find_embedded, find_pyannote, find_whisper
from backend.errors import EngineUnavailable
from backend.services.conversations import ConversationService
from backend.services.metrics import Metrics
from backend.services.people import PeopleService
from backend.services.processing import ProcessingService
from backend.services.speech import SpeechPipeline
from backend.services.storage import StorageService

logger = logging.getLogger(__name__)

DEFAULT_WHISPER = "small"
DEFAULT_PYANNOTE = "community-1"


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


@asynccontextmanager
async def open_services(settings: Settings, speech: SpeechPipeline | None = None) -> AsyncIterator[Services]:
    """Open storage, database and engines; closed again in reverse order.

    Args:
        settings: what to open.
        speech: a pipeline to use instead of the configured engines.

    Raises:
        EngineUnavailable: an engine that was asked for by name is not there.
        StorageError: UPLOAD_DIR cannot be written, or S3 is demanded and refuses.
        DatabaseUnavailable: the database does not answer.
    """
    speech = speech or open_speech(settings)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(StorageService(settings.storage))
        if settings.database_url.startswith("sqlite"):
            await migrate(settings.database_url)
        database = Database(settings.database_url)
        stack.push_async_callback(database.close)
        await check_migrated(database)
        people = PeopleService(database, enabled=settings.known_voices)
        metrics = Metrics()
        yield Services(
            settings=settings,
            storage=storage,
            database=database,
            speech=speech,
            processing=ProcessingService(storage, database, speech, people, metrics),
            conversations=ConversationService(storage, database),
            people=people,
            metrics=metrics,
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
        spool_dir=Path(settings.storage.upload_dir) / ".spool",
    )


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

    if find_embedded() is None:
        raise EngineUnavailable(
            "The built-in Moonshine engine is not installed: run `pip install moonshine-voice==0.0.71` "
            "(Linux, glibc 2.34 or newer), or fetch a Whisper model with `aperta models pull small`."
        )
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
            "DIARIZATION_ENGINE=pyannote, but pyannote.audio is not installed: run `pip install 'aperta[pyannote]'`."
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
