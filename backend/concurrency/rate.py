"""RateLimit: spread transfers over time, so that their total rate stays below a limit in bytes per second."""

from __future__ import annotations

import asyncio
import time


class RateLimit:
    """Gives each transfer a slot as long as it should take; slots do not overlap.

    A transfer that itself keeps to the rate then fills its slot, and the next begins when it ends.

    Args:
        max_bytes_per_s: 0: no limit.
    """

    def __init__(self, max_bytes_per_s: int = 0) -> None:
        self.max_bytes_per_s = max_bytes_per_s
        self._free_at = 0.0

    async def wait(self, size_bytes: int) -> bool:
        """Return at the beginning of this transfer's slot; whether that was later than now."""
        if not self.max_bytes_per_s:
            return False
        now = time.monotonic()
        starts_at = max(now, self._free_at)
        self._free_at = starts_at + size_bytes / self.max_bytes_per_s
        await asyncio.sleep(starts_at - now)
        return starts_at > now
