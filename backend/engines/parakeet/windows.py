"""Cuts a recording into windows that a model hears at once: as long as it takes them, from pause to pause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.audio.vad import speech_regions
from backend.engines.progress import Progress

MAX_WINDOW_S = 28.0
MAX_GAP_S = 2.0
"""A longer pause ends a window: the model need not hear silence."""
PADDING_S = 0.3


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the recording, in seconds."""

    start_s: float
    end_s: float


def windows_of(audio: Audio, progress: Progress) -> Iterator[Window]:
    """Windows that hold all speech of a recording, in time order, none longer than `MAX_WINDOW_S`.

    A pause of speech between two windows is shared by them, so no word is heard twice. Speech without a pause is cut
    where it is quietest.

    Args:
        progress: called several times a second. What it raises is raised here.
    """
    before_s = 0.0
    joined = list(_joined(audio, progress))
    for number, window in enumerate(joined):
        after_s = joined[number + 1].start_s if number + 1 < len(joined) else audio.duration_s
        start_s = max(window.start_s - PADDING_S, (before_s + window.start_s) / 2, 0.0)
        yield Window(start_s, min(window.end_s + PADDING_S, (window.end_s + after_s) / 2, audio.duration_s))
        before_s = window.end_s


def _joined(audio: Audio, progress: Progress) -> Iterator[Window]:
    longest_s = MAX_WINDOW_S - 2 * PADDING_S
    current: Window | None = None
    for piece in _pieces(audio, progress, longest_s):
        if current and piece.start_s - current.end_s <= MAX_GAP_S and piece.end_s - current.start_s <= longest_s:
            current = Window(current.start_s, piece.end_s)
            continue
        if current:
            yield current
        current = piece
    if current:
        yield current


def _pieces(audio: Audio, progress: Progress, longest_s: float) -> Iterator[Window]:
    for region in speech_regions(audio, progress):
        start_s = region.start_s
        while region.end_s - start_s > longest_s:
            cut_s = _quietest(audio, start_s + longest_s / 2, start_s + longest_s)
            yield Window(start_s, cut_s)
            start_s = cut_s
        yield Window(start_s, region.end_s)


def _quietest(audio: Audio, start_s: float, end_s: float) -> float:
    """Middle of the quietest tenth of a second."""
    frame = SAMPLE_RATE_HZ // 10
    samples = audio.seconds(start_s, end_s)
    energy = np.square(samples[: len(samples) // frame * frame].reshape(-1, frame)).mean(axis=1)
    return start_s + (int(energy.argmin()) + 0.5) * frame / SAMPLE_RATE_HZ
