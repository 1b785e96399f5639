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


class Budget:
    """The space that the samples of one recording may take.

    Args:
        max_bytes: of all files together; silence that takes no space counts, too.
        disk_reserve_bytes: free space that must be left on the disk.
    """

    def __init__(self, *, max_bytes: int, disk_reserve_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._disk_reserve_bytes = disk_reserve_bytes
        self._written_bytes = 0
        self._checked_at_bytes = 0

    def check_expected(self, size_bytes: int, file: IO[bytes]) -> None:
        """Refuse what would not fit.

        Raises:
            TooLarge, StorageFull
        """
        if size_bytes > self._max_bytes:
            raise too_many_bytes(self._max_bytes)
        self._check_disk(size_bytes, file)

    def spend(self, size_bytes: int, file: IO[bytes]) -> None:
        """Take note of what is about to be written. Raises as `check_expected`."""
        self._written_bytes += size_bytes
        if self._written_bytes > self._max_bytes:
            raise too_many_bytes(self._max_bytes)
        if self._written_bytes - self._checked_at_bytes >= DISK_CHECKED_BYTES:
            self._checked_at_bytes = self._written_bytes
            self._check_disk(DISK_CHECKED_BYTES, file)

    def _check_disk(self, more_bytes: int, file: IO[bytes]) -> None:
        disk = os.fstatvfs(file.fileno())
        if disk.f_bavail * disk.f_frsize < self._disk_reserve_bytes + more_bytes:
            raise StorageFull(
                "The decoded samples would leave less space on the disk than DISK_HARD_LIMIT_BYTES. "
                "Free space or move UPLOAD_DIR."
            )


class Tracks:
    """The sample files of one audio stream: one for all channels mixed, or one for each channel.

    Args:
        files: all that are open for writing.
        numbers: which of them are this stream's.
        sample_format: "s16" or "flt", packed.
        budget: shared with the recording's other streams.

    Attributes:
        n_samples: how long each file is.
        has_sound: whether anything was written.
    """

    def __init__(self, files: Sequence[IO[bytes]], numbers: Sequence[int], sample_format: str, budget: Budget) -> None:
        self.sample_format = sample_format
        self.n_samples = 0
        self.has_sound = False
        self._numbers = numbers
        self._files = [files[number] for number in numbers]
        self._budget = budget
        self._width = BYTES_OF[sample_format]

    @property
    def places(self) -> list[tuple[int, str]]:
        """The number of each file, and the format of its samples."""
        return [(number, self.sample_format) for number in self._numbers]

    @property
    def are_mixed(self) -> bool:
        return len(self._files) == 1

    def write(self, frames: Sequence[av.AudioFrame]) -> None:
        """Append resampled frames; a stream that loses a channel on the way leaves silence on that track.

        Raises:
            TooLarge, StorageFull
        """
        for frame in frames:
            self._budget.spend(frame.samples * len(self._files) * self._width, self._files[0])
            self._write(frame)
            self.n_samples += frame.samples
            self.has_sound = True

    def skip_to(self, n_samples: int) -> None:
        """Leave silence up to a sample: a hole in the file, which takes no space. Raises as `write`."""
        if n_samples <= self.n_samples:
            return
        self._budget.spend((n_samples - self.n_samples) * len(self._files) * self._width, self._files[0])
        self.n_samples = n_samples
        for file in self._files:
            file.seek((n_samples - 1) * self._width)
            file.write(bytes(self._width))

    def _write(self, frame: av.AudioFrame) -> None:
        channels = frame.layout.nb_channels
        packed = memoryview(frame.planes[0])[: frame.samples * channels * self._width]
        if self.are_mixed and channels == 1:
            self._files[0].write(packed)
            return
        samples = array(_ARRAY_TYPES[self.sample_format], packed.tobytes())
        for number, track in enumerate(self._files):
            track.write(samples[number::channels] if number < channels else bytes(frame.samples * self._width))


def too_many_bytes(max_bytes: int) -> TooLarge:
    """The error for a recording whose decoded samples take too much space."""
    return TooLarge(
        f"The recording's decoded samples take more than {max_bytes} bytes. Split it, mix its channels, or raise "
        "MAX_DECODED_BYTES."
    )
