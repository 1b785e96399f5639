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
    """Raised inside work whose caller has stopped waiting."""


def ignore_progress(_fraction: float) -> None:
    """Ignore progress reports."""


def watched(work: Callable[[Progress], T], progress: Progress) -> T:
    """Do work that cannot be interrupted, such as one long call into a library, in a thread that can be left behind.

    Args:
        work: receives a callback that raises `Abandoned` once the caller has stopped waiting; it runs on until then.
        progress: called from the caller's thread with each report of the work, and every `TICK_S` in between. An
            exception it raises is raised here at once.
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
    """The next report, or the previous one if none arrives in time; None: the work has ended."""
    try:
        return reports.get(timeout=TICK_S)
    except Empty:
        return before
