"""From how likely each speaker talks in each frame to speaker turns. Pure functions on arrays; no engine, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.domain.transcript import SpeakerTurn

Scores = NDArray[np.float32]
Ints = NDArray[np.int64]
Active = NDArray[np.bool_]


def overlap_add(
    pieces: Iterable[tuple[int, int, Scores]], starts: Ints, shape: Scores, n_frames: int, n_speakers: int
) -> Scores:
    """Mean score over all windows that see a frame, weighted by the place of the frame in the window.

    Args:
        pieces: (window, speaker, (n_window_frames,) scores); what is not given counts as zero.
        starts: (n_windows,) first frame of each window.
        shape: (n_window_frames,) weights.

    Returns:
        (n_frames, n_speakers) float32.
    """
    width = len(shape)
    scores = np.zeros((n_frames + width, n_speakers), dtype=np.float32)
    weights = np.full(n_frames + width, 1e-6, dtype=np.float32)
    for start in starts:
        weights[start : start + width] += shape
    for window, speaker, piece in pieces:
        scores[starts[window] : starts[window] + width, speaker] += shape * piece
    scores /= weights[:, None]
    return scores[:n_frames]


def hysteresis(scores: Scores, enter: float, keep: float) -> Active:
    """Who is active: runs where the score stays above `keep` and at least once is above `enter`.

    Args:
        scores: (n_frames, n_speakers) in [0, 1].

    Returns:
        (n_frames, n_speakers).
    """
    active = np.zeros(scores.shape, dtype=np.bool_)
    for speaker in range(scores.shape[1]):
        for start, stop in runs(scores[:, speaker] > keep):
            active[start:stop, speaker] = scores[start:stop, speaker].max() > enter
    return active


def insist(active: Active, scores: Scores, least: int) -> tuple[Active, Scores]:
    """Let at least `least` speakers be active, if anyone is: who was never reached gets the likeliest stretch."""
    heard = active.any(axis=0)
    best = np.where(heard, 0.0, scores.max(axis=0))
    missing = [int(i) for i in np.argsort(-best, kind="stable") if best[i] > 0]
    active, scores = active.copy(), scores.copy()
    for speaker in missing[: max(0, least - int(heard.sum()))]:
        peak = int(scores[:, speaker].argmax())
        likely = runs(scores[:, speaker] > 0.5 * scores[peak, speaker])
        start, stop = next(run for run in likely if run[0] <= peak < run[1])
        active[start:stop, speaker] = True
        scores[start:stop, speaker] += 1.0
    return active, scores


def heed_voices(active: Active, scores: Scores, frames: Ints, fit: Scores, doubt: float) -> tuple[Active, Scores]:
    """Give a stretch in which one speaker talks to another one whose voice it clearly has.

    The segmentation now and then takes two people of one window for the same; how they sound tells them apart.

    Args:
        frames: (n_glimpses,) middle frame of each glimpse, rising.
        fit: (n_glimpses, n_speakers) cosine of the glimpse to each speaker's voice.
        doubt: by how much another speaker must fit better.

    Returns:
        Corrected copies of `active` and `scores`.
    """
    active, scores = active.copy(), scores.copy()
    alone = active.sum(axis=1) == 1
    for speaker in range(active.shape[1]):
        for start, stop in runs(active[:, speaker] & alone):
            inside = slice(*np.searchsorted(frames, (start, stop)))
            better = fit[inside] - fit[inside, speaker][:, None]
            chosen = np.where(better.max(axis=1, initial=0.0) > doubt, better.argmax(axis=1), speaker)
            for new, begin, end in _stretches(chosen, frames[inside], start, stop):
                if new != speaker:
                    active[begin:end, [speaker, new]] = active[begin:end, [new, speaker]]
                    scores[begin:end, [speaker, new]] = scores[begin:end, [new, speaker]]
    return active, scores


def _stretches(chosen: Ints, frames: Ints, start: int, stop: int) -> Iterable[tuple[int, int, int]]:
    """(speaker, first frame, end) of each run of equal choices, cut half-way between glimpses; one alone is no run."""
    edges = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(chosen))), len(chosen)]
    for first, last in pairwise(edges):
        if last - first < min(2, len(chosen)) or last == first:
            continue
        begin = start if first == 0 else int(frames[first - 1] + frames[first]) // 2
        end = stop if last == len(chosen) else int(frames[last - 1] + frames[last]) // 2
        yield int(chosen[first]), begin, end


def fill_pauses(active: Active, longest: int) -> Active:
    """Bridge pauses of up to `longest` frames within one speaker's turn, unless another speaker talks."""
    filled, talking = active.copy(), active.sum(axis=1)
    silence_before = np.concatenate([[0], np.cumsum(talking > 0)])
    for speaker in range(active.shape[1]):
        stretches = runs(active[:, speaker])
        for (_, start), (stop, _) in pairwise(stretches):
            if stop - start <= longest and silence_before[stop] == silence_before[start]:
                filled[start:stop, speaker] = True
    return filled


def one_at_a_time(active: Active, scores: Scores) -> Active:
    """Keep one speaker per frame. A stretch with the same people talking goes to the one with the best mean."""
    single = active.copy()
    crowded = active.sum(axis=1) > 1
    changes = np.any(active[1:] != active[:-1], axis=1)
    edges = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(active)]])
    for start, stop in pairwise(edges):
        if stop > start and crowded[start]:
            mean = np.where(active[start], scores[start:stop].mean(axis=0), -1.0)
            single[start:stop] = False
            single[start:stop, int(mean.argmax())] = True
    return single


def to_turns(
    active: Active, labels: Sequence[str], step_s: float, offset_s: float, end_s: float
) -> tuple[SpeakerTurn, ...]:
    """Turns sorted by start; frame i covers [offset_s + i·step_s, offset_s + (i + 1)·step_s), cut to [0, end_s]."""
    turns = []
    for speaker, label in enumerate(labels):
        for start, stop in runs(active[:, speaker]):
            start_s, end = max(0.0, offset_s + start * step_s), min(end_s, offset_s + stop * step_s)
            if end > start_s:
                turns.append(SpeakerTurn(round(start_s, 3), round(end, 3), label))
    return tuple(sorted(turns, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker)))


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, stop) of every stretch of True in a (n,) mask."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
