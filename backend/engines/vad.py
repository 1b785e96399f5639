"""Where somebody talks, whoever it is: silero VAD as bundled in the faster-whisper wheel."""

from __future__ import annotations

from collections.abc import Iterator

from backend.domain.transcript import SpeakerTurn
from backend.engines.audio import SAMPLE_RATE_HZ, Audio

BLOCK_S = 600


def speech_regions(audio: Audio) -> Iterator[SpeakerTurn]:
    """Speech as exclusive turns of one nameless speaker, in time order; reads ten minutes at a time."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(min_silence_duration_ms=500, speech_pad_ms=100)
    for start in range(0, audio.n_samples, BLOCK_S * SAMPLE_RATE_HZ):
        block = audio.read(start, start + BLOCK_S * SAMPLE_RATE_HZ)
        for region in get_speech_timestamps(block, options):
            yield SpeakerTurn(
                (start + region["start"]) / SAMPLE_RATE_HZ, (start + region["end"]) / SAMPLE_RATE_HZ, speaker=""
            )
