"""Load a model once, on first use or at warm-up, from whichever thread asks first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """A value that a slow function makes once. Thread-safe; a failed load is tried again by the next caller.

    Args:
        name: what to call the thing before it is loaded (health, logs).
        load: makes the value; runs in the caller's thread, so call `get` off the event loop.
    """

    def __init__(self, name: str, load: Callable[[], T]) -> None:
        self.name = name
        self._load = load
        self._lock = threading.Lock()
        self._value: T | None = None

    @property
    def loaded(self) -> bool:
        return self._value is not None

    def get(self) -> T:
        if self._value is None:
            with self._lock:
                if self._value is None:
                    self._value = self._load()
        return self._value
