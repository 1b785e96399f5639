"""From "how much does each speaker talk in each frame" to speaker turns. Pure functions on arrays; no engine, no I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backend.domain.transcript import SpeakerTurn

Scores = NDArray[np.float32]
Active = NDArray[np.bool_]


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


def fill_pauses(active: Active, longest: int) -> Active:
    """Bridge pauses of up to `longest` frames between two stretches of one speaker in which nobody else talks."""
    filled, talking = active.copy(), active.sum(axis=1)
    silence_before = np.concatenate([[0], np.cumsum(talking > 0)])
    for speaker in range(active.shape[1]):
        stretches = runs(active[:, speaker])
        for (_, start), (stop, _) in zip(stretches[:-1], stretches[1:], strict=True):
            if stop - start <= longest and silence_before[stop] == silence_before[start]:
                filled[start:stop, speaker] = True
    return filled


def one_at_a_time(active: Active, scores: Scores) -> Active:
    """Keep one speaker per frame. A stretch in which the same people talk goes to the one with the highest mean score."""
    single = active.copy()
    crowded = active.sum(axis=1) > 1
    changes = np.any(active[1:] != active[:-1], axis=1)
    edges = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(active)]])
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        if stop > start and crowded[start]:
            mean = np.where(active[start], scores[start:stop].mean(axis=0), -1.0)
            single[start:stop] = False
            single[start:stop, int(mean.argmax())] = True
    return single


def to_turns(active: Active, labels: Sequence[str], step_s: float, offset_s: float, end_s: float) -> tuple[SpeakerTurn, ...]:
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
