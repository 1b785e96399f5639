"""How much memory decoders may take: each by the size of its recording, all together by what the machine has."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backend.engines.progress import TICK_S, Progress, ignore_progress

MIB = 1024**2
MAX_DECODER_BYTES = 512 * MIB
"""Address space of one decoder. A film of 12 hours takes 300 MiB; a file that needs more is a bomb."""
MIN_DECODER_BYTES, BYTES_PER_BYTE = 224 * MIB, 8
"""A small file gets less: the minimum, of which the programs take 120 MiB, and 8 bytes for each byte of the file. What
a demuxer keeps of one packet (its place, size and time) takes 60 bytes, and the packets of speech have 20."""

_CGROUP_FILES = {"": "memory.max", "memory": "memory.limit_in_bytes"}
"""Which file of a cgroup states its limit, for version 2 and for version 1 of the interface."""


class MemoryBudget:
    """Bytes that decoders at work may take together; who comes first is served first. Safe to use from many threads."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._free_bytes = total_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size_bytes: int, progress: Progress = ignore_progress) -> Iterator[None]:
        """Wait until the bytes are free, and keep them inside the block.

        Args:
            size_bytes: more than the whole budget counts as the whole budget.
            progress: called with 0 while waiting; what it raises ends the wait.
        """
        size_bytes = min(size_bytes, self.total_bytes)
        self._take(size_bytes, progress)
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += size_bytes
                self._changed.notify_all()

    def _take(self, size_bytes: int, progress: Progress) -> None:
        me = object()
        with self._changed:
            self._waiting.append(me)
        try:
            while not self._try_to_take(me, size_bytes):
                progress(0.0)  # outside the lock: it may take its time
        finally:
            with self._changed:
                self._waiting.remove(me)
                self._changed.notify_all()

    def _try_to_take(self, me: object, size_bytes: int) -> bool:
        def mine() -> bool:
            return self._waiting[0] is me and size_bytes <= self._free_bytes

        with self._changed:
            if not self._changed.wait_for(mine, TICK_S):
                return False
            self._free_bytes -= size_bytes
            return True


def decoder_memory_bytes(recording_bytes: int) -> int:
    """What the decoder of a recording of this size may take."""
    return min(MAX_DECODER_BYTES, MIN_DECODER_BYTES + BYTES_PER_BYTE * recording_bytes)


def split_budget(machine_bytes: int) -> tuple[MemoryBudget, MemoryBudget]:
    """Budgets for probing and for decoding, together half of what the machine has but enough for one decoder.

    They are one and the same where two decoders do not fit; else an upload need not wait for long decodings.
    """
    total_bytes = max(machine_bytes // 2, MAX_DECODER_BYTES)
    if total_bytes < 2 * MAX_DECODER_BYTES:
        both = MemoryBudget(total_bytes)
        return both, both
    return MemoryBudget(total_bytes // 2), MemoryBudget(total_bytes // 2)


def machine_memory_bytes(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """The memory this process and its children may take: the least of the machine's and all its control groups'.

    Args:
        cgroups: where the control groups are mounted.
        own: the file that names this process's groups.
    """
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine_bytes, *_cgroup_limits(cgroups, own)])


def _cgroup_limits(cgroups: Path, own: Path) -> Iterator[int]:
    lines = own.read_text().splitlines() if own.is_file() else []
    for _number, controllers, place in (line.split(":", 2) for line in lines):
        if controllers in _CGROUP_FILES:
            root = cgroups / controllers
            for folder in _upwards(root, root / place.lstrip("/")):
                with suppress(OSError, ValueError):  # no such file, or "max"
                    yield int((folder / _CGROUP_FILES[controllers]).read_text())


def _upwards(root: Path, folder: Path) -> Iterator[Path]:
    """A container may see its own group as the root, under a path that is not there."""
    yield folder
    yield from (parent for parent in folder.parents if parent.is_relative_to(root))
