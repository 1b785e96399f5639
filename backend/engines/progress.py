"""How engines say how far they are, and are stopped: what a progress callback raises ends the work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")

Progress = Callable[[float], None]
"""Called with the fraction done, 0 to 1, from the thread that called the engine and at least once a second.

Raising is how a caller cancels: the error leaves the engine within two seconds, and the engine can be used again.
"""
TICK_S = 0.25


class Abandoned(Exception):
    """Raised inside work that nobody waits for any more."""


def ignore_progress(_fraction: float) -> None:
    """For callers that do not watch."""


def watched(work: Callable[[Progress], T], progress: Progress) -> T:
    """Do work that cannot be interrupted, such as one long call into a library, in a thread that can be left behind.

    Args:
        work: given a callback of its own, which raises `Abandoned` once nobody waits; until it calls that, it runs on.
        progress: called from the caller's thread with all that the work reports, and every `TICK_S` in between. What it
            raises is raised here at once.
    """
    abandoned, reports = threading.Event(), SimpleQueue[float | None]()

    def report(fraction: float) -> None:
        if abandoned.is_set():
            raise Abandoned
        reports.put(fraction)

    helper = ThreadPoolExecutor(1, "watched")
    job = helper.submit(work, report)
    job.add_done_callback(lambda _job: reports.put(None))
    try:
        done = 0.0
        while (heard := _next(reports, done)) is not None:
            done = heard
            progress(done)
        return job.result()
    finally:
        abandoned.set()
        helper.shutdown(wait=False)


def _next(reports: SimpleQueue[float | None], before: float) -> float | None:
    """The next report, or the one before if there is none in time; None: the work has ended."""
    try:
        return reports.get(timeout=TICK_S)
    except Empty:
        return before
