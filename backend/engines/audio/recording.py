"""A recording that FFmpeg reads through an open file, so that it needs no name and may not follow any."""

from __future__ import annotations

import os
from pathlib import Path


class OpenRecording:
    """An open file of fixed size, as PyAV reads files: `read`, `seek`, `tell`. It has no name that FFmpeg could see."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._descriptor).st_size
        self._position = 0

    def read(self, size_bytes: int) -> bytes:
        data = os.pread(self._descriptor, size_bytes, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place in the file.

        Returns:
            The new position; below 0, and nothing moved, if the place is before the beginning: FFmpeg tries that, and
            an exception would outlive the attempt.
        """
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        if start + offset >= 0:
            self._position = start + offset
        return start + offset

    def tell(self) -> int:
        return self._position

    def peek(self, size_bytes: int) -> bytes:
        """The file's first bytes."""
        return os.pread(self._descriptor, size_bytes, 0)

    def close(self) -> None:
        os.close(self._descriptor)
