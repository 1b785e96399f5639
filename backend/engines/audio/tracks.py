"""Decoded samples on their way into files: how they are written, and what stops them before they fill the disk."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from typing import IO

import av

from backend.errors import StorageFull, TooLarge

DISK_CHECKED_BYTES = 32 * 1024**2
"""How much is written between two looks at the disk."""
BYTES_OF = {"s16": 2, "flt": 4}
"""Sample formats that tracks are written in."""
_ARRAY_TYPES = {"s16": "h", "flt": "f"}


class Tracks:
    """Sample files of one recording, one for all channels mixed or one for each channel.

    Args:
        files: open for writing.
        sample_format: "s16" or "flt", packed.
        max_bytes: of all files together.
        disk_reserve_bytes: free space that must be left on the disk.
    """

    def __init__(
        self, files: Sequence[IO[bytes]], sample_format: str, *, max_bytes: int, disk_reserve_bytes: int
    ) -> None:
        self._files = files
        self._format = sample_format
        self._max_bytes = max_bytes
        self._disk_reserve_bytes = disk_reserve_bytes
        self._written_bytes = 0
        self._checked_at_bytes = 0

    @property
    def count(self) -> int:
        return len(self._files)

    @property
    def are_mixed(self) -> bool:
        return len(self._files) == 1

    @property
    def sample_format(self) -> str:
        return self._format

    def check_expected(self, n_samples: int) -> None:
        """Refuse what would not fit.

        Args:
            n_samples: how long each track will be, if that is known.

        Raises:
            TooLarge, StorageFull
        """
        expected_bytes = n_samples * len(self._files) * BYTES_OF[self._format]
        if expected_bytes > self._max_bytes:
            raise too_many_bytes(self._max_bytes)
        self._check_disk(expected_bytes)

    def write(self, frames: list[av.AudioFrame]) -> int:
        """Append resampled frames; a stream that loses a channel on the way leaves silence on that track.

        Returns:
            Samples written to each track.

        Raises:
            TooLarge, StorageFull
        """
        written = 0
        for frame in frames:
            self._check(frame.samples * len(self._files) * BYTES_OF[self._format])
            self._write(frame)
            written += frame.samples
        return written

    def _write(self, frame: av.AudioFrame) -> None:
        channels, width = frame.layout.nb_channels, BYTES_OF[self._format]
        packed = memoryview(frame.planes[0])[: frame.samples * channels * width]
        if self.are_mixed:
            self._files[0].write(packed)
            return
        samples = array(_ARRAY_TYPES[self._format], packed.tobytes())
        for number, track in enumerate(self._files):
            track.write(samples[number::channels] if number < channels else bytes(frame.samples * width))

    def _check(self, more_bytes: int) -> None:
        self._written_bytes += more_bytes
        if self._written_bytes > self._max_bytes:
            raise too_many_bytes(self._max_bytes)
        if self._written_bytes - self._checked_at_bytes >= DISK_CHECKED_BYTES:
            self._checked_at_bytes = self._written_bytes
            self._check_disk(DISK_CHECKED_BYTES)

    def _check_disk(self, more_bytes: int) -> None:
        disk = os.fstatvfs(self._files[0].fileno())
        if disk.f_bavail * disk.f_frsize < self._disk_reserve_bytes + more_bytes:
            raise StorageFull(
                "The decoded samples would leave less space on the disk than DISK_HARD_LIMIT_BYTES. "
                "Free space or move UPLOAD_DIR."
            )


def too_many_bytes(max_bytes: int) -> TooLarge:
    """The error for a recording whose decoded samples take too much space."""
    return TooLarge(
        f"The recording's decoded samples take more than {max_bytes} bytes. Split it, mix its channels, or raise "
        "MAX_DECODED_BYTES."
    )
