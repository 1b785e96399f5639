"""What stops a decoding that takes too long, and tells how far it is."""

from __future__ import annotations

import json
import sys
import time

from backend.engines.audio.decoding.resampling import SAMPLE_RATE_HZ
from backend.engines.audio.process import too_slow
from backend.engines.progress import TICK_S
from backend.errors import TooLarge


class Watch:
    """Looks after one decoding.

    Args:
        max_samples: of each track.
        max_cpu_s: seconds of computing.

    Attributes:
        claimed_s: how long the header says the recording is: good for a progress bar and for nothing else.
    """

    def __init__(self, max_samples: int, max_cpu_s: float) -> None:
        self.claimed_s = 0.0
        self._max_samples = max_samples
        self._max_cpu_s = max_cpu_s
        self._told_at = 0.0

    def check(self, n_samples: int) -> None:
        """Raises TooLarge."""
        if n_samples > self._max_samples:
            raise TooLarge(
                f"The recording is longer than {self._max_samples / SAMPLE_RATE_HZ:.0f} s of decoded audio. "
                "Split it, or raise MAX_AUDIO_SECONDS."
            )
        now = time.monotonic()
        if now - self._told_at < TICK_S / 2:
            return
        self._told_at = now
        if time.process_time() > self._max_cpu_s:
            raise too_slow(self._max_cpu_s)
        # Said even where it means nothing: once the reader is gone, writing fails, and this process ends.
        claimed_samples = self.claimed_s * SAMPLE_RATE_HZ
        say({"progress": min(0.99, n_samples / claimed_samples) if claimed_samples > 0 else 0.0})


def say(message: dict[str, object]) -> None:
    """Write one line of JSON to the process that started this one."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
