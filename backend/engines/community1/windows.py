"""The grid that community-1 looks at a recording through, and how it is tuned. Runs no network."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.community1.clustering import ClusteringOptions

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

WINDOW = 10 * SAMPLE_RATE_HZ
N_FRAMES, N_LOCAL = 589, 3
FRAME_STEP, FRAME_OFFSET = 270, 360  # samples: frame i covers [360 + 270·i, 630 + 270·i)
FRAME_S = FRAME_STEP / SAMPLE_RATE_HZ
TRUNK_STEP, TRUNK_FRAMES = 1280, 125  # the ResNet gives 125 frames of 80 ms for 10 s


@dataclass(frozen=True, slots=True)
class Tuning:
    """Found on read conversations, a telephone call and far-field meetings; the optimum is flat in all of them.

    Attributes:
        hop_s, fine_hop_s: distance of windows; the fine one for recordings shorter than `fine_below_s`.
        enter, keep: mean probability that starts a turn, and that continues it.
        faint: replaces `enter` when that finds no speaker, or fewer than asked for, in quiet speech.
        pause_s: pauses of one speaker up to this length, without another speaker, belong to the turn.
        silence: a window without a louder sample than this (-80 dBFS) holds no speech; the network would amplify it.
        ramp_s: the outer part of a window counts less; the network has no context there.
        least_s: a local speaker with less activity is ignored.
        solo_s: with more time alone than this, only that time is embedded.
        clustered_s: embeddings of at least this much solo speech decide who the speakers are ...
        coherent: ... if no two glimpses of it are less alike than this cosine, as those of two people are.
        glimpse_s, glimpse_hop_s: length and distance of the looks that check whose voice a stretch has.
        doubt: cosine by which another speaker's voice must fit better, to take a stretch over.
    """

    hop_s: float = 2.0
    fine_hop_s: float = 1.0
    fine_below_s: float = 180.0
    enter: float = 0.5
    keep: float = 0.45
    faint: float = 0.25
    pause_s: float = 1.5
    silence: float = 1e-4
    ramp_s: float = 1.0
    least_s: float = 0.2
    solo_s: float = 0.5
    clustered_s: float = 1.5
    coherent: float = 0.2
    glimpse_s: float = 1.5
    glimpse_hop_s: float = 0.5
    doubt: float = 0.25
    clustering: ClusteringOptions = field(default_factory=ClusteringOptions)


def window_starts(n_samples: int, tuning: Tuning) -> Ints:
    """First samples of the windows; the last window ends with the recording."""
    fine = n_samples < tuning.fine_below_s * SAMPLE_RATE_HZ
    hop = round((tuning.fine_hop_s if fine else tuning.hop_s) * SAMPLE_RATE_HZ)
    last = max(0, n_samples - WINDOW)
    return np.append(np.arange(0, last, hop), last).astype(np.int64)


def coverage(starts: Ints, window: int) -> Ints:
    """(589,) how many windows see each frame of this one: fewer near both ends of the recording."""
    frames = starts[window] + np.arange(N_FRAMES) * FRAME_STEP
    seen: Ints = np.searchsorted(starts, frames, "right") - np.searchsorted(starts, frames - WINDOW, "right")
    return seen


def read_mended(audio: Audio, start: int, n_samples: int) -> Floats:
    """Samples, zeros beyond the end; values that are not finite or out of range are repaired."""
    samples = audio.read(start, start + n_samples)
    if not np.isfinite(samples).all():
        samples = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    samples = np.clip(samples, -1.0, 1.0)
    return np.pad(samples, (0, n_samples - len(samples)))


def ramp(tuning: Tuning) -> Floats:
    """(589,) weights of the frames of a window: 1, falling towards both ends."""
    rise = np.minimum(1, (np.arange(N_FRAMES) + 1) * FRAME_S / tuning.ramp_s)
    weights: Floats = np.minimum(rise, rise[::-1]).astype(np.float32)
    return weights
