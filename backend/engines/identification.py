"""Which language is spoken in a recording: Whisper's own guess, asked about speech from several places of it.

A guess about the first half minute is one about the music, the greeting or the queue of a call.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.base import LanguageGuess
from backend.engines.progress import Progress, watched

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

Floats = NDArray[np.float32]

WINDOW_S = 30.0
"""What Whisper hears at once."""
LOOK_S = 60.0
PLACES = 4
"""Places whose speech is asked about, at most; each costs one pass of the encoder."""
SURE, SURE_PLACES = 0.9, 2
"""So sure in so many places in a row, no further place is asked about."""
LOOKS = 24
"""Stretches that are searched for speech, over all of a long recording, until there are enough places."""
ENOUGH_S = 12.0
"""Speech of one place, at least, while there are others to look at."""


def identify(model: WhisperModel, tracks: Sequence[Audio], progress: Progress) -> LanguageGuess | None:
    """The language of a recording; None if nobody speaks in it.

    Args:
        model: a multilingual one.
        tracks: the recording, or its channels.
        progress: called several times a second, always with 0. What it raises is raised here.
    """
    weights: defaultdict[str, float] = defaultdict(float)
    total_s, agreed = 0.0, 0
    for speech in _places(tracks, progress):
        found = watched(partial(_ask, model, speech), progress)
        seconds = len(speech) / SAMPLE_RATE_HZ
        total_s += seconds
        for language, probability in found:
            weights[language] += probability * seconds
        surest, probability = max(found, key=lambda item: item[1])
        agreed = agreed + 1 if probability >= SURE and surest == max(weights, key=lambda code: weights[code]) else 0
        if agreed == SURE_PLACES:
            break
    if not total_s:
        return None
    language = max(weights, key=lambda code: weights[code])
    return LanguageGuess(language, round(min(1.0, weights[language] / total_s), 3), round(total_s, 1))


def _ask(model: WhisperModel, speech: Floats, _report: Progress) -> list[tuple[str, float]]:
    _, _, found = model.detect_language(speech)
    return [(language, float(probability)) for language, probability in found]


def _places(tracks: Sequence[Audio], progress: Progress) -> Iterator[Floats]:
    """Speech of up to `PLACES` places, each (n_samples,) float32 of up to `WINDOW_S`, none of them empty.

    Places with little speech are put together, and come last.
    """
    given, scarce = 0, [np.zeros(0, np.float32)]
    for track, start_s in _looks(tracks):
        speech = watched(partial(_speech, track.seconds(start_s, start_s + LOOK_S)), progress)
        if len(speech) < ENOUGH_S * SAMPLE_RATE_HZ:
            scarce.append(speech)
            continue
        yield speech
        given += 1
        if given == PLACES:
            return
    joined = np.concatenate(scarce)[: (PLACES - given) * _WINDOW]
    for first in range(0, len(joined), _WINDOW):
        yield joined[first : first + _WINDOW]


_WINDOW = round(WINDOW_S * SAMPLE_RATE_HZ)


def _looks(tracks: Sequence[Audio]) -> Iterator[tuple[Audio, float]]:
    """Where to look for speech: first in the middle of each quarter, then between these, in every track."""
    longest_s = max(track.duration_s for track in tracks)
    count = min(LOOKS, max(1, math.ceil(longest_s / LOOK_S)))
    order = sorted(range(count), key=lambda number: (_rank(number, count), number))
    for number in order:
        for track in tracks:
            room_s = max(0.0, track.duration_s - LOOK_S)
            yield track, room_s * number / max(1, count - 1)


def _rank(number: int, count: int) -> int:
    """How late a place comes; those that are far from each other come first."""
    step = max(1, count // PLACES)
    return 0 if (number - step // 2) % step == 0 else 1


def _speech(samples: Floats, _report: Progress) -> Floats:
    """The speech in some samples, joined; up to `WINDOW_S` of it."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    regions = get_speech_timestamps(samples, VadOptions(min_silence_duration_ms=500, speech_pad_ms=100))
    spoken = [samples[region["start"] : region["end"]] for region in regions]
    return np.concatenate(spoken)[:_WINDOW] if spoken else np.zeros(0, np.float32)
