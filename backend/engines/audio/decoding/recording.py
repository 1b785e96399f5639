"""A recording that FFmpeg reads through an open file, so that it needs no name and may not follow any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

BLOCK_BYTES = 1024**2


class OpenRecording:
    """An open file of fixed size, as PyAV reads files: `read`, `seek`, `tell`. It has no name that FFmpeg could see."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._descriptor).st_size

    def peek(self, size_bytes: int, at: int = 0) -> bytes:
        """Bytes from a place in the file; fewer at its end."""
        return os.pread(self._descriptor, size_bytes, at)

    def blocks(self, start: int, end: int, overlap_bytes: int = 0) -> Iterator[tuple[int, bytes]]:
        """The bytes between two places, piece by piece, each with where it begins; neighbours overlap."""
        while start < end:
            block = self.peek(min(BLOCK_BYTES, end - start), start)
            if not block:
                return
            yield start, block
            start += len(block) - (overlap_bytes if start + len(block) < end and len(block) > overlap_bytes else 0)

    def part(self, start: int, end: int, head: bytes = b"") -> RecordingPart:
        """A stretch of the file as a recording of its own."""
        return RecordingPart(self, start, end, head)

    def close(self) -> None:
        os.close(self._descriptor)


class RecordingPart:
    """A stretch of an open recording, as PyAV reads files.

    Args:
        recording: stays open as long as this is used.
        start, end: the first byte, and the first behind it.
        head: what to read in place of as many bytes at the beginning: a header with its mistakes mended.
    """

    def __init__(self, recording: OpenRecording, start: int, end: int, head: bytes = b"") -> None:
        self._recording = recording
        self._head = head
        self._position = 0
        self.start = start
        self.size_bytes = end - start

    def read(self, size_bytes: int) -> bytes:
        data = self.peek(size_bytes, self._position)
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

    def peek(self, size_bytes: int, at: int = 0) -> bytes:
        """Bytes from a place in the part; fewer at its end."""
        size_bytes = max(0, min(size_bytes, self.size_bytes - at))
        if at < len(self._head):
            return self._head[at : at + size_bytes]
        return self._recording.peek(size_bytes, self.start + at)
