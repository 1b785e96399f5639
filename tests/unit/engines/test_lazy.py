"""Models are loaded once, by whoever asks first."""

from __future__ import annotations

import threading
import time

import pytest

from backend.engines.lazy import Lazy


def test_many_threads_load_once() -> None:
    loads: list[int] = []

    def load() -> object:
        time.sleep(0.05)
        loads.append(1)
        return object()

    lazy = Lazy("model", load)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(lazy.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1 and len({id(item) for item in found}) == 1 and lazy.loaded


def test_a_failed_load_is_tried_again() -> None:
    outcomes = iter([RuntimeError("disk"), None])

    def load() -> str:
        if outcome := next(outcomes):
            raise outcome
        return "model"

    lazy = Lazy("model", load)
    with pytest.raises(RuntimeError):
        lazy.get()
    assert not lazy.loaded and lazy.get() == "model"
