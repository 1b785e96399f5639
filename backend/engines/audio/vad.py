"""Where somebody talks, whoever it is: silero VAD as bundled in the faster-whisper wheel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from backend.domain.evidence import SpeechEvidence
from backend.domain.transcript import SpeakerTurn
from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.progress import Progress, ignore_progress, watched

BLOCK_S = 600
FRAME_SAMPLES = 512
BLOCK_SAMPLES = BLOCK_S * SAMPLE_RATE_HZ // FRAME_SAMPLES * FRAME_SAMPLES


def speech_regions(
    audio: Audio, progress: Progress = ignore_progress, *, least_pause_s: float = 0.5, padding_s: float = 0.1
) -> Iterator[SpeakerTurn]:
    """Speech as exclusive turns of one nameless speaker, in time order; reads ten minutes at a time.

    Args:
        least_pause_s: a shorter pause parts no turns.
        padding_s: how much of the silence around it belongs to a turn.
        progress: called several times a second, always with 0: this is the smallest part of any work. What it raises
            is raised here.
    """
    for start in range(0, audio.n_samples, BLOCK_S * SAMPLE_RATE_HZ):
        block = audio.read(start, start + BLOCK_S * SAMPLE_RATE_HZ)
        for region in watched(partial(_regions, block, least_pause_s, padding_s), progress):
            yield SpeakerTurn(
                (start + region["start"]) / SAMPLE_RATE_HZ, (start + region["end"]) / SAMPLE_RATE_HZ, speaker=""
            )


def speech_evidence(audio: Audio, progress: Progress = ignore_progress) -> SpeechEvidence:
    """How likely it is that somebody speaks, moment by moment; reads ten minutes at a time.

    Args:
        progress: as for `speech_regions`.
    """
    blocks = [
        watched(partial(_probabilities, audio.read(start, start + BLOCK_SAMPLES)), progress)
        for start in range(0, audio.n_samples, BLOCK_SAMPLES)
    ]
    return SpeechEvidence(np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32))


def _probabilities(samples: NDArray[np.float32], _report: Progress) -> NDArray[np.float32]:
    """(n_frames,) probabilities of the frames of 32 ms that hold samples."""
    from faster_whisper.vad import get_vad_model

    padded = np.pad(samples, (0, -len(samples) % FRAME_SAMPLES))
    return np.asarray(get_vad_model()(padded), dtype=np.float32).reshape(-1)


def _regions(
    samples: NDArray[np.float32], least_pause_s: float, padding_s: float, _report: Progress
) -> list[dict[str, int]]:
    """First and last sample of each stretch of speech. One call into the library: it cannot say how far it is."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(min_silence_duration_ms=round(1000 * least_pause_s), speech_pad_ms=round(1000 * padding_s))
    regions: list[dict[str, int]] = get_speech_timestamps(samples, options)
    return regions
