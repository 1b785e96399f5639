"""When each word was said, from the decoder's cross-attention and the sound. Pure numpy; runs no network.

The method is that of Whisper's `find_alignment` (openai/whisper, whisper/timing.py): attention heads standardised over
the tokens, averaged, smoothed, and a dynamic-time-warping path through tokens and frames. The path has no gaps, so the
silence around a word is cut off afterwards by how loud it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from backend.domain.transcript import Word
from backend.engines.audio.samples import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FRAME_SAMPLES = 384
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE_HZ
SPACE = "▁"
MEDIAN_FRAMES = 7
CLICK_FRAMES = 5
"""Sounds of less than half of this are no speech."""
QUIETER = 0.1
"""Of a word's loudest frame: less is silence ..."""
ABOVE_NOISE = 2.0
"""... and so is less than this times the piece's quiet frames, but never more than half of the loudest."""
CLOSURE_FRAMES = 8
"""Silence inside a word, before a plosive, is at most this long; before a word so much may be a quiet consonant."""
BEFORE_FRAMES, AFTER_FRAMES = 16, 34
"""No word begins earlier before, or ends later after, the frame that the decoder looked at most for its first, or its
last token. Only matters in noise that hides the silence."""


class Sound:
    """How loud a piece is in each frame, without clicks.

    Args:
        samples: (n_samples,).
    """

    def __init__(self, samples: Floats, n_frames: int) -> None:
        whole = np.zeros(n_frames * FRAME_SAMPLES, np.float32)
        whole[: len(samples)] = samples[: len(whole)]
        rms = np.sqrt(np.square(whole.reshape(n_frames, FRAME_SAMPLES)).mean(axis=1))
        self._loudness = _smoothed(rms[None], CLICK_FRAMES)[0]
        self._quiet = float(np.percentile(self._loudness, 10)) * ABOVE_NOISE

    def runs(self, start: int, stop: int) -> list[tuple[int, int]]:
        """[first, end) of the stretches between two frames that are no silence beside the loudest; at least one."""
        loudness = self._loudness[start:stop]
        peak = float(loudness.max())
        loud = loudness >= min(max(peak * QUIETER, self._quiet), peak / 2)
        return [(first + start, end + start) for first, end in _bridged(loud, CLOSURE_FRAMES)]


def placed_words(
    tokens: Sequence[bytes], probabilities: Sequence[float], attention: NDArray[np.floating], samples: Floats
) -> list[Word]:
    """Words with start, end and probability; joined and stripped, their texts are the text.

    Args:
        tokens: their bytes; a word begins with "▁".
        probabilities: at least one per token. A word's is their mean, as Whisper's library has it.
        attention: (n_rows, n_heads, n_frames), a row per token and, if the text ended, one more; see `token_edges`.
        samples: (n_samples,) of the piece.
    """
    if not tokens:
        return []
    edges, looked_at = token_edges(attention), attention.mean(axis=1, dtype=np.float32).argmax(axis=1).tolist()
    sound = Sound(samples, attention.shape[2])
    words = []
    for first, stop in _word_spans(tokens):
        text = b"".join(tokens[first:stop]).decode("utf-8", "replace").replace(SPACE, " ").strip()
        spoken = _last_spoken(tokens, first, stop)
        start, end = _sounding(sound, (edges[first], edges[stop]), (looked_at[first], looked_at[spoken]))
        probability = round(fmean(probabilities[first:stop]), 4)
        words.append(Word(f" {text}", round(start * FRAME_S, 3), round(end * FRAME_S, 3), probability))
    return words


def token_edges(attention: NDArray[np.floating]) -> list[int]:
    """Frames at which tokens begin.

    Args:
        attention: (n_rows, n_heads, n_frames); a row holds where the decoder looked while it chose a token.

    Returns:
        (n_rows + 1,) rising: the first frame of each row's token, and `n_frames`.
    """
    starts = first_frames(-_smoothed(_standardised(attention.astype(np.float32)), MEDIAN_FRAMES))
    return [*starts, attention.shape[2]]


def _standardised(attention: Floats) -> Floats:
    """(n_tokens, n_frames): mean over the heads of how far each lies above its own mean over the tokens."""
    mean = attention.mean(axis=0)
    square = np.einsum("thf,thf->hf", attention, attention) / len(attention)
    weights = 1 / (np.sqrt(np.maximum(square - mean**2, 0)) + 1e-6)
    above: Floats = np.einsum("thf,hf->tf", attention, weights) - np.einsum("hf,hf->f", mean, weights)
    above /= attention.shape[1]
    return above


def _smoothed(rows: Floats, n_frames: int) -> Floats:
    """Median over `n_frames` neighbouring frames, an odd number."""
    padded = np.pad(rows, ((0, 0), (n_frames // 2, n_frames // 2)), mode="edge")
    smooth: Floats = np.median(np.lib.stride_tricks.sliding_window_view(padded, n_frames, axis=1), axis=2)
    return smooth


def first_frames(cost: Floats) -> list[int]:
    """Dynamic time warping: the first frame of each row on the cheapest path from corner to corner.

    A path goes to the next frame, the next row, or both. Along a row the cheapest way to frame j is the best frame k
    to enter it by, plus the costs from k to j: with running sums, a running minimum. So there is a step per row, and
    none per cell.

    Args:
        cost: (n_rows, n_frames).
    """
    n_rows, n_frames = cost.shape
    frames = np.arange(n_frames)
    entered = np.zeros((n_rows, n_frames), np.int64)
    straight_down = np.zeros((n_rows, n_frames), np.bool_)
    sums = np.cumsum(cost, axis=1, dtype=np.float64)
    total = sums[0]
    for row in range(1, n_rows):
        diagonal = np.concatenate([[np.inf], total[:-1]])
        straight_down[row] = total < diagonal
        entry = np.minimum(total, diagonal) - (sums[row] - cost[row])
        best = np.minimum.accumulate(entry)
        entered[row] = np.maximum.accumulate(np.where(entry <= best, frames, 0))
        total = sums[row] + best
    return _traced_back(entered, straight_down)


def _traced_back(entered: Ints, straight_down: NDArray[np.bool_]) -> list[int]:
    n_rows, n_frames = entered.shape
    starts = [0] * n_rows
    frame = n_frames - 1
    for row in range(n_rows - 1, 0, -1):
        starts[row] = int(entered[row, frame])
        frame = starts[row] - (0 if straight_down[row, starts[row]] else 1)
    return starts


def _word_spans(tokens: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """[first, stop) of the tokens of each word."""
    begins = [n for n, token in enumerate(tokens) if n == 0 or token.decode("utf-8", "replace").startswith(SPACE)]
    return pairwise([*begins, len(tokens)])


def _last_spoken(tokens: Sequence[bytes], first: int, stop: int) -> int:
    """The last token of a word that is not just punctuation; the first one, if all are."""
    spoken = [n for n in range(first, stop) if any(c.isalnum() for c in tokens[n].decode("utf-8", "replace"))]
    return spoken[-1] if spoken else first


def _sounding(sound: Sound, span: tuple[int, int], looked_at: tuple[int, int]) -> tuple[int, int]:
    """First and end frame of a word inside its span of the path.

    Args:
        looked_at: the frames that the decoder looked at most for the word's first and last token.
    """
    start, stop = span
    if stop - start < 2:
        return start, stop
    first, last = (min(max(frame, start), stop - 1) for frame in looked_at)
    runs = sound.runs(start, stop)
    begin, end = _nearest(runs, first)[0], _nearest(runs, last)[1]
    if begin - start < CLOSURE_FRAMES:
        begin = start
    begin = max(begin, first - BEFORE_FRAMES)
    return begin, max(begin + 1, min(end, last + AFTER_FRAMES))


def _bridged(mask: NDArray[np.bool_], longest: int) -> list[tuple[int, int]]:
    """[start, stop) of the stretches of True, those less than `longest` apart joined."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))).tolist()
    joined = [edges[0]]
    for stop, start in zip(edges[1:-1:2], edges[2::2], strict=True):
        if start - stop > longest:
            joined += [stop, start]
    joined.append(edges[-1])
    return list(zip(joined[::2], joined[1::2], strict=True))


def _nearest(runs: Sequence[tuple[int, int]], frame: int) -> tuple[int, int]:
    return min(runs, key=lambda run: max(run[0] - frame, frame - run[1] + 1, 0))
