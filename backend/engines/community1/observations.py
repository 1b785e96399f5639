"""All that the networks say of a recording: who talks in each window, how they sound, and how each moment sounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.community1.embedding import VoiceNetwork
from backend.engines.community1.masks import glimpses_of, local_speakers_of, own_frames
from backend.engines.community1.windows import FRAME_OFFSET, FRAME_S, Floats, Ints, Tuning
from backend.engines.progress import Progress


@dataclass(frozen=True, slots=True)
class Windows:
    """A recording as the segmentation sees it: first samples, and (n_windows, 589, 3) probabilities up to 255."""

    starts: Ints
    activity: NDArray[np.uint8]

    def active(self, window: int, enter: float) -> NDArray[np.bool_]:
        """(589, 3) who talks with at least this probability."""
        active: NDArray[np.bool_] = self.activity[window] > 255 * enter
        return active


@dataclass(frozen=True, slots=True)
class Locals:
    """The local speakers of all windows, in order; `solo_s` and `own_s` are explained at `LocalSpeaker`.

    Attributes:
        windows, slots: (n,) where each is.
        embeddings: (n, 256).
        coherence: (n,) the least cosine between two glimpses of it: low where two people were taken for one.
    """

    windows: Ints
    slots: Ints
    solo_s: Floats
    own_s: Floats
    embeddings: Floats
    coherence: Floats


@dataclass(frozen=True, slots=True)
class Glimpses:
    """How a second and a half around an instant sounds: (n,) seconds, (n, 256) embeddings."""

    at_s: Floats
    embeddings: Floats

    def coherence(self, frames: NDArray[np.bool_], start: int) -> float:
        """The least cosine between two glimpses with their middle in these frames of a window; 1 if there are no two.

        Args:
            start: first sample of the window.
        """
        first_s = (start + FRAME_OFFSET) / SAMPLE_RATE_HZ
        near = slice(*np.searchsorted(self.at_s, (first_s, first_s + len(frames) * FRAME_S)))
        middles = ((self.at_s[near] - first_s) / FRAME_S).astype(np.int64)
        inside = self.embeddings[near][frames[np.minimum(middles, len(frames) - 1)]]
        return float((inside @ inside.T).min(initial=1.0))


@dataclass(frozen=True, slots=True)
class Observations:
    """All observations, where `enter` is the lowest probability that counts as speech."""

    windows: Windows
    enter: float
    local: Locals
    glimpses: Glimpses


def listen(
    network: VoiceNetwork, audio: Audio, windows: Windows, enter: float, tuning: Tuning, progress: Progress
) -> Observations:
    """How every local speaker sounds, and every glimpse."""
    listener = network.listen(audio)
    local, local_voices = [], []
    seen_at_s, seen_voices = [], []
    for window, start in enumerate(windows.starts):
        active = windows.active(window, enter)
        for glimpse, voice in listener.embed(int(start), glimpses_of(active, window, windows.starts, tuning)):
            seen_at_s.append(glimpse.at_s)
            seen_voices.append(voice)
        for speaker, voice in listener.embed(int(start), local_speakers_of(active, window, windows.starts, tuning)):
            local.append((window, speaker.slot, speaker.solo_s, speaker.own_s))
            local_voices.append(voice)
        progress((window + 1) / len(windows.starts))
    glimpses = Glimpses(np.array(seen_at_s, dtype=np.float32), network.normalised(seen_voices))
    places, slots, solo_s, own_s = np.array(local, dtype=np.float64).reshape(-1, 4).T

    def coherence() -> Iterator[float]:
        for window, slot, *_ in local:
            progress(1.0)
            yield glimpses.coherence(own_frames(windows.active(window, enter), slot, tuning), windows.starts[window])

    return Observations(
        windows,
        enter,
        Locals(
            places.astype(np.int64),
            slots.astype(np.int64),
            solo_s.astype(np.float32),
            own_s.astype(np.float32),
            network.normalised(local_voices),
            np.fromiter(coherence(), dtype=np.float32, count=len(local)),
        ),
        glimpses,
    )
