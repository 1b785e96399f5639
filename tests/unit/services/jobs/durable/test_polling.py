"""Sleep: what the threads of queues wait on."""

from __future__ import annotations

import threading
import time

import pytest

from backend.services.jobs.durable import polling
from backend.services.jobs.durable.polling import Sleep


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> Sleep:
    """A queue that has had nothing to do for long."""
    monkeypatch.setattr(polling, "AWAKE_S", 0.0)
    return Sleep(lambda: False)


def took_s(sleep: Sleep, timeout: float) -> float:
    began = time.monotonic()
    sleep.wait(timeout)
    return time.monotonic() - began


def test_a_busy_process_polls_at_the_queues_own_pace() -> None:
    assert took_s(Sleep(lambda: True), 0.01) < 5


def test_an_idle_one_sleeps_on(asleep: Sleep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "ASLEEP_S", 0.3)
    assert took_s(asleep, 0.01) >= 0.3


def test_what_wakes_it_ends_the_sleep_at_once_and_not_the_thread(asleep: Sleep) -> None:
    threading.Timer(0.05, asleep.wake).start()
    assert took_s(asleep, 0.01) < 5 and not asleep.is_set()


def test_a_wake_during_a_poll_is_not_lost(asleep: Sleep) -> None:
    asleep.wake()
    assert took_s(asleep, 60.0) < 5


def test_the_end_is_told_at_once(asleep: Sleep) -> None:
    threading.Timer(0.05, asleep.set).start()
    assert asleep.wait(60.0)
