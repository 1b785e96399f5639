"""Which tracks of a recording say the same: copied channels, and tracks in two codecs or with opposite polarity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.engines.progress import Progress

SAMPLE_RATE_HZ = 16_000
COMPARED_SAMPLES = 60 * SAMPLE_RATE_HZ
PARTS_OF_SECOND = 10
COMPARED_AT_ONCE = SAMPLE_RATE_HZ // PARTS_OF_SECOND
"""Gain and polarity are found anew for so many samples."""
SAME_CHANNEL_DIFFERENCE = 0.1
"""Two channels are one if no more than this part of the level remains when one is taken from the other, whatever its
gain and polarity: lossy codecs leave up to half of it."""
OWN_SHARE, LOUD_SHARE = 0.25, 0.01
"""A second with this share of energy of its own, and no less than this share of the mean energy, is another voice."""
WINDOW_SAMPLES, MAX_LAG_SAMPLES, WINDOWS = 4 * SAMPLE_RATE_HZ, SAMPLE_RATE_HZ // 5, 8
SAME_SOUND_CORRELATION = 0.8
"""Two tracks are one if they correlate so at some lag, wherever either is loud. Copies in low bit rates reach 0.9; what
a microphone picks up of a loudspeaker in its room stays below 0.5."""


class Track(Protocol):
    """Samples as `Audio` has them."""

    n_samples: int

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]: ...

    def close(self) -> None: ...


T = TypeVar("T", bound=Track)
Same = Callable[[Track, Track, Progress], bool]


def distinct(tracks: Sequence[T], same: Same, progress: Progress) -> tuple[T, ...]:
    """Tracks without those that say the same as one before; their files are closed."""
    kept: list[T] = []
    for track in tracks:
        if any(same(other, track, progress) for other in kept):
            track.close()
        else:
            kept.append(track)
    return tuple(kept)


def same_channel(one: Track, other: Track, progress: Progress) -> bool:
    """Whether one channel is a copy of the other, sample by sample; gain and polarity may change on the way."""
    seconds = [
        _compare(*(track.read(start, start + COMPARED_SAMPLES) for track in (one, other)))
        for start in _told(range(0, one.n_samples, COMPARED_SAMPLES), progress)
    ]
    one_energy, other_energy, remainder = np.concatenate(seconds, axis=1)
    if not other_energy.any():
        return not one_energy.any()
    is_loud = other_energy >= LOUD_SHARE * other_energy.mean()
    has_other_voice = bool((is_loud & (remainder > OWN_SHARE * other_energy)).any())
    return not has_other_voice and remainder.sum() <= SAME_CHANNEL_DIFFERENCE**2 * other_energy.sum()


def _told(starts: range, progress: Progress) -> Iterator[int]:
    for start in starts:
        progress(1.0)
        yield start


def _compare(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """(3, n_seconds): the energies of both, and what remains of the other without the one."""
    a, b = _short(one), _short(other)
    one_energy, other_energy, product = (np.einsum("ij,ij->i", *pair) for pair in ((a, a), (b, b), (a, b)))
    explained = np.divide(product**2, one_energy, out=np.zeros_like(product), where=one_energy > 0.0)
    values = np.stack([one_energy, other_energy, other_energy - explained])
    seconds: NDArray[np.float64] = values.reshape(3, -1, PARTS_OF_SECOND).sum(axis=2)
    return seconds


def _short(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """(10 * n_seconds, COMPARED_AT_ONCE) float64, the last second filled up with silence."""
    padded = np.zeros(-(-len(samples) // SAMPLE_RATE_HZ) * SAMPLE_RATE_HZ)
    padded[: len(samples)] = samples
    return padded.reshape(-1, COMPARED_AT_ONCE)


def same_sound(one: Track, other: Track, progress: Progress) -> bool:
    """Whether two tracks hold the same sound, perhaps a little later, louder, inverted or in another codec."""
    windows = _loudest_windows(one, other, progress)
    if not windows:
        return True
    return min(_correlation(*(track.read(*window) for track in (one, other))) for window in windows) >= (
        SAME_SOUND_CORRELATION
    )


def _loudest_windows(one: Track, other: Track, progress: Progress) -> list[tuple[int, int]]:
    """Stretches where one of the two is loudest; empty if both are silent."""
    levels: list[tuple[float, int]] = []
    for start in range(0, one.n_samples, WINDOW_SAMPLES):
        progress(1.0)
        energy = sum(float(np.square(track.read(start, start + WINDOW_SAMPLES)).sum()) for track in (one, other))
        levels.append((energy, start))
    loudest = sorted(levels, reverse=True)[:WINDOWS]
    least = 0.01 * loudest[0][0] if loudest else 0.0
    return [(start, start + WINDOW_SAMPLES) for energy, start in loudest if energy > 0.0 and energy >= least]


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest normalised cross-correlation of two windows within the allowed lags, whatever its sign."""
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    if norm == 0.0:
        return 0.0
    size = 1 << (2 * len(one) - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size)), size)
    near = np.concatenate([product[: MAX_LAG_SAMPLES + 1], product[-MAX_LAG_SAMPLES:]])
    return float(np.abs(near).max()) / norm
