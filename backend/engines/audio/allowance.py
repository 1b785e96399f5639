"""What decoders may use of the machine, and how firmly they are locked in: settings that hold for every recording."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backend.engines.audio.confinement import Confinement
from backend.engines.audio.memory import MemoryBudget, decoder_memory_bytes
from backend.engines.progress import Progress, ignore_progress

MAX_DECODED_BYTES = 6 * 1024**3
"""Enough for 12 hours of two channels in float samples."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What decoders may use.

    Attributes:
        confinement: how firmly each is locked in.
        memory: what all of them share.
        max_decoded_bytes: size of one recording's samples, all tracks together.
        disk_reserve_bytes: space that the samples must leave free on their disk.
    """

    confinement: Confinement = Confinement.AUTO
    memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(sys.maxsize))
    max_decoded_bytes: int = MAX_DECODED_BYTES
    disk_reserve_bytes: int = 0

    @contextmanager
    def granted(self, path: Path, progress: Progress = ignore_progress) -> Iterator[dict[str, object]]:
        """Wait for the memory that the recording's decoder may take, and keep it inside the block.

        Yields:
            What the decoder is to be told of its limits.
        """
        memory_bytes = decoder_memory_bytes(path.stat().st_size)
        with self.memory.hold(memory_bytes, progress):
            yield {
                "confinement": self.confinement,
                "max_memory_bytes": memory_bytes,
                "max_decoded_bytes": self.max_decoded_bytes,
                "disk_reserve_bytes": self.disk_reserve_bytes,
            }
