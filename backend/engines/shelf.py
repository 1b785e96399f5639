"""Models in memory: loaded when they are needed, released when others need the room or after a time without use."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from backend.engines.heap import return_freed
from backend.engines.lazy import Lazy

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Place(Generic[T]):
    """A model's place on the shelf. `users` counts those who have it now; it is not released while there are any."""

    value: Lazy[T]
    size_bytes: int
    users: int
    used_at: float


class Shelf(Generic[T]):
    """Thread-safe. A model that is in use is never released.

    Args:
        memory_bytes: how much those in memory may take together; the least recently used go first. More than this is
            taken only while the models in use are that large.
        idle_s: how long a model stays that nobody uses; 0: for ever.
        keeps: asked before a model is released because it is idle; True: it stays.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        *,
        memory_bytes: int,
        idle_s: float,
        keeps: Callable[[str], bool] = lambda _name: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._idle_s = idle_s
        self._keeps = keeps
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[str, _Place[T]] = {}
        self._timer: threading.Timer | None = None

    @property
    def loaded(self) -> dict[str, T]:
        """What is in memory, by name."""
        with self._lock:
            return {name: place.value.get() for name, place in self._places.items() if place.value.loaded}

    @contextmanager
    def lease(self, name: str, size_bytes: int, load: Callable[[], T]) -> Iterator[T]:
        """A model for as long as the block lasts; it is loaded in the caller's thread if it is not in memory.

        Args:
            size_bytes: about what it takes in memory.
            load: makes it. What it raises is raised here, and the next caller tries again.
        """
        place = self._enter(name, size_bytes, load)
        try:
            yield place.value.get()
        finally:
            self._leave(name, place)

    def release_idle(self) -> None:
        """Release what nobody has used for `idle_s`, and come back when the next one is due."""
        with self._lock:
            due = [name for name, place in self._places.items() if self._idle_since(place) >= self._idle_s]
        self._release([name for name in due if not self._keeps(name)], "idle")
        self._arm()

    def close(self) -> None:
        """Stop waiting for models to become idle."""
        with self._lock:
            if self._timer:
                self._timer.cancel()

    def _enter(self, name: str, size_bytes: int, load: Callable[[], T]) -> _Place[T]:
        with self._lock:
            place = self._places.setdefault(name, _Place(Lazy(name, load), size_bytes, 0, self._clock()))
            place.users += 1
            room = self._crowd(size_bytes, but=name) if not place.value.loaded else []
        self._release(room, "others need its memory")
        return place

    def _leave(self, name: str, place: _Place[T]) -> None:
        with self._lock:
            place.users -= 1
            place.used_at = self._clock()
            if not place.users and not place.value.loaded:
                self._places.pop(name, None)
        self._arm()

    def _crowd(self, size_bytes: int, *, but: str) -> list[str]:
        """Whom to release so that a new model fits, least recently used first."""
        others = {name: place for name, place in self._places.items() if name != but}
        needed = sum(place.size_bytes for place in others.values()) + size_bytes - self._memory_bytes
        chosen = []
        for name, place in sorted(others.items(), key=lambda item: item[1].used_at):
            if needed <= 0:
                break
            if not place.users:
                chosen.append(name)
                needed -= place.size_bytes
        return chosen

    def _release(self, names: list[str], why: str) -> None:
        with self._lock:
            gone = [name for name in names if (place := self._places.get(name)) and not place.users]
            for name in gone:
                del self._places[name]
        if gone:
            gc.collect()
            return_freed()
            logger.info("released %s from memory (%s)", ", ".join(gone), why)

    def _idle_since(self, place: _Place[T]) -> float:
        """Seconds for which nobody has used it."""
        return -1.0 if place.users else self._clock() - place.used_at

    def _arm(self) -> None:
        """Wait for the next model that will be idle; no thread runs while there is none."""
        if not self._idle_s:
            return
        with self._lock:
            waits = [
                self._idle_s - self._idle_since(place)
                for name, place in self._places.items()
                if not place.users and not self._keeps(name)
            ]
            if self._timer:
                self._timer.cancel()
            self._timer = threading.Timer(max(0.01, min(waits)), self.release_idle) if waits else None
            if self._timer:
                self._timer.daemon = True
                self._timer.start()
