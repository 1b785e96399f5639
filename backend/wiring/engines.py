"""Chooses the speech engines: the only file that names concrete engines."""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import replace
from pathlib import Path

from backend.config import AsrEngine, DiarizationEngine, Settings, SpeechConfig
from backend.engines.audio.allowance import Allowance
from backend.engines.audio.memory import machine_memory_bytes, split_budget
from backend.engines.base import Diarizer, Transcriber
from backend.engines.catalogue import best_whisper_on_disk, find_pyannote, find_whisper, get_embedded
from backend.engines.heap import return_large_blocks
from backend.engines.lazy import Lazy
from backend.errors import EngineUnavailable
from backend.services.speech.pipeline import SpeechPipeline

logger = logging.getLogger(__name__)


DEFAULT_WHISPER = "small"


DEFAULT_PYANNOTE = "community-1"


def open_speech(settings: Settings) -> SpeechPipeline:
    """Choose the engines; nothing is loaded yet, but what was asked for by name must be there.

    Raises:
        EngineUnavailable
    """
    return_large_blocks()
    probing, decoding = _allow_decoders(settings)
    return SpeechPipeline(
        _choose_transcriber(settings.speech),
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
    from backend.engines.moonshine.transcriber import MoonshineTranscriber

    get_embedded()
    return Lazy(MoonshineTranscriber.name, lambda: MoonshineTranscriber(threads(config)))


def _whisper(config: SpeechConfig, model: str) -> Lazy[Transcriber]:
    from backend.engines.whisper.transcriber import FasterWhisperTranscriber

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
