"""Which frames of a window the embedding network is asked about. Pure; runs no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import SAMPLE_RATE_HZ
from backend.engines.community1.windows import (
    FRAME_S,
    FRAME_STEP,
    TRUNK_FRAMES,
    TRUNK_STEP,
    WINDOW,
    Floats,
    Ints,
    Tuning,
    coverage,
)


@dataclass(frozen=True, slots=True)
class Look:
    """Part of a window: the weight of each of its (125,) trunk frames."""

    mask: Floats


@dataclass(frozen=True, slots=True)
class LocalSpeaker(Look):
    """One of up to three people in a window.

    Attributes:
        solo_s: how long they talk alone, 0 if that is too short to count.
        own_s: how much speech of the recording this is, where every window that sees a frame has an equal part in it.
    """

    slot: int
    solo_s: float
    own_s: float


@dataclass(frozen=True, slots=True)
class Glimpse(Look):
    """A second and a half around an instant."""

    at_s: float


def local_speakers_of(active: NDArray[np.bool_], window: int, starts: Ints, tuning: Tuning) -> Iterator[LocalSpeaker]:
    """The local speakers of one window; active is (589, 3)."""
    own_s = (FRAME_S / coverage(starts, window)).astype(np.float32)
    edges = np.arange(TRUNK_FRAMES) * TRUNK_STEP // FRAME_STEP
    for slot in np.flatnonzero(active.sum(axis=0) * FRAME_S >= tuning.least_s).tolist():
        solo_s = float(_alone(active, slot).sum() * FRAME_S)
        mask = own_frames(active, slot, tuning).astype(np.float32)
        share = np.add.reduceat(mask, edges) * np.float32(FRAME_STEP / TRUNK_STEP)
        yield LocalSpeaker(share, slot, solo_s if solo_s >= tuning.solo_s else 0.0, float(own_s @ mask))


def own_frames(active: NDArray[np.bool_], slot: int, tuning: Tuning) -> NDArray[np.bool_]:
    """(589,) the frames that tell how a local speaker sounds: alone if that is enough, else all; active is (589, 3)."""
    alone = _alone(active, slot)
    return alone if alone.sum() * FRAME_S >= tuning.solo_s else active[:, slot]


def _alone(active: NDArray[np.bool_], slot: int) -> NDArray[np.bool_]:
    alone: NDArray[np.bool_] = active[:, slot] & (active.sum(axis=1) == 1)
    return alone


def glimpses_of(active: NDArray[np.bool_], window: int, starts: Ints, tuning: Tuning) -> Iterator[Glimpse]:
    """The glimpses near this window's middle in which mostly one person talks; active is (589, 3)."""
    start_s, last = starts[window] / SAMPLE_RATE_HZ, len(starts) - 1
    middle_s = start_s + WINDOW / SAMPLE_RATE_HZ / 2
    hop_s = float(starts[min(window + 1, last)] - starts[max(0, window - 1)]) / SAMPLE_RATE_HZ / 2 or 10.0
    from_s = start_s if window == 0 else middle_s - hop_s / 2
    until_s = start_s + WINDOW / SAMPLE_RATE_HZ if window == last else middle_s + hop_s / 2
    alone = (active.sum(axis=1) == 1).astype(np.float32)
    edges = np.arange(TRUNK_FRAMES) * TRUNK_STEP // FRAME_STEP
    share = np.add.reduceat(alone, edges) * np.float32(FRAME_STEP / TRUNK_STEP)
    half = round(tuning.glimpse_s * SAMPLE_RATE_HZ / TRUNK_STEP / 2)
    first = int(np.ceil(from_s / tuning.glimpse_hop_s))
    for at_s in np.arange(first, until_s / tuning.glimpse_hop_s) * tuning.glimpse_hop_s:
        center = round((at_s - start_s) * SAMPLE_RATE_HZ / TRUNK_STEP)
        mask = np.zeros_like(share)
        span = slice(max(0, center - half), center + half + 1)
        mask[span] = share[span]
        if mask.sum() >= half:
            yield Glimpse(mask, float(at_s))
