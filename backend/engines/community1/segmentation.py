"""The segmentation network: in each window of 10 s, up to three local speakers and when each of them talks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import Audio
from backend.engines.community1.model_files import SEGMENTATION, find_model, open_session
from backend.engines.community1.windows import N_FRAMES, N_LOCAL, WINDOW, Ints, read_mended
from backend.engines.progress import Progress

BATCH = 8
# The local speakers in each powerset class: none, one of three, two of three.
POWERSET = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=np.float32)


class SegmentationNetwork:
    """The loaded network. May be shared by threads.

    Raises:
        EngineUnavailable: it is missing or is not the expected one.
    """

    def __init__(self, models_dir: Path | None, *, threads: int) -> None:
        self._session = open_session(SEGMENTATION, find_model(SEGMENTATION, models_dir), threads=threads)

    def activity(self, audio: Audio, starts: Ints, silence: float, progress: Progress) -> NDArray[np.uint8]:
        """(n_windows, 589, 3) probability that a local speaker talks, 255 is certain.

        Args:
            starts: first samples of the windows.
            silence: a window without a louder sample holds no speech.
        """
        activity = np.zeros((len(starts), N_FRAMES, N_LOCAL), dtype=np.uint8)
        for first in range(0, len(starts), BATCH):
            batch = np.stack([read_mended(audio, int(start), WINDOW) for start in starts[first : first + BATCH]])
            loud = first + np.flatnonzero(np.abs(batch).max(axis=1) > silence)
            if len(loud):
                log_probabilities = self._session.run(None, {"waveforms": batch[loud - first, None]})[0]
                talking = np.nan_to_num(np.exp(log_probabilities) @ POWERSET)
                activity[loud] = np.rint(255 * np.clip(talking, 0, 1))
            progress(min(1.0, (first + BATCH) / len(starts)))
        return activity
