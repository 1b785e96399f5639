"""Models in memory: loaded once, kept while in use, released for room or after a time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.engines.shelf import Shelf


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def use(shelf: Shelf[str], name: str, size_bytes: int = 10) -> None:
    with shelf.lease(name, size_bytes, lambda: name.upper()):
        pass


def test_a_model_is_loaded_once_for_all_who_ask_at_the_same_time(clock: Clock) -> None:
    shelf: Shelf[object] = Shelf(memory_bytes=100, idle_s=0, clock=clock)
    together, loads = threading.Barrier(4), []

    def load() -> object:
        loads.append(1)
        time.sleep(0.05)
        return object()

    def ask(_number: int) -> object:
        together.wait()
        with shelf.lease("base", 10, load) as model:
            return model

    with ThreadPoolExecutor(4) as pool:
        models = set(pool.map(ask, range(4)))
    assert (len(models), len(loads)) == (1, 1)


def test_the_least_recently_used_model_makes_room(clock: Clock) -> None:
    shelf: Shelf[str] = Shelf(memory_bytes=25, idle_s=0, clock=clock)
    for name in ("a", "b", "a", "c"):
        clock.now_s += 1
        use(shelf, name)
    assert set(shelf.loaded) == {"a", "c"}


def test_a_model_in_use_is_not_released_for_room(clock: Clock) -> None:
    shelf: Shelf[str] = Shelf(memory_bytes=15, idle_s=0, clock=clock)
    with shelf.lease("a", 10, lambda: "A"):
        use(shelf, "b")
        assert "a" in shelf.loaded
    use(shelf, "c")
    assert set(shelf.loaded) == {"c"}


def test_a_model_that_is_larger_than_all_memory_is_loaded_all_the_same(clock: Clock) -> None:
    shelf: Shelf[str] = Shelf(memory_bytes=5, idle_s=0, clock=clock)
    with shelf.lease("large", 10, lambda: "L") as model:
        assert model == "L"


def test_an_idle_model_is_released_and_others_are_not(clock: Clock) -> None:
    shelf: Shelf[str] = Shelf(memory_bytes=100, idle_s=60, keeps=lambda name: name == "default", clock=clock)
    for name in ("default", "old"):
        use(shelf, name)
    clock.now_s = 30
    use(shelf, "new")
    clock.now_s = 60
    with shelf.lease("busy", 10, lambda: "B"):
        clock.now_s = 80
        shelf.release_idle()
        assert set(shelf.loaded) == {"default", "new", "busy"}
    shelf.close()


def test_idle_models_are_released_without_anybody_asking() -> None:
    shelf: Shelf[str] = Shelf(memory_bytes=100, idle_s=0.05)
    use(shelf, "base")
    deadline = time.monotonic() + 10
    while shelf.loaded and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not shelf.loaded


def test_with_zero_seconds_models_stay(clock: Clock) -> None:
    shelf: Shelf[str] = Shelf(memory_bytes=100, idle_s=0, clock=clock)
    use(shelf, "base")
    assert set(shelf.loaded) == {"base"}


def test_a_model_that_does_not_load_is_tried_again(clock: Clock) -> None:
    shelf: Shelf[str] = Shelf(memory_bytes=100, idle_s=0, clock=clock)

    def fail() -> str:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"), shelf.lease("base", 10, fail):
        pass
    assert not shelf.loaded
    use(shelf, "base")
    assert shelf.loaded == {"base": "BASE"}
