"""The interface through which the pipeline runs its stages, and steps that are simply run."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from backend.services.speech.values import StageProgress, ignore_progress

T = TypeVar("T")


class Steps(Protocol):
    """Runs the stages of a job and notes how long each took; a durable one never repeats a stage that was done."""

    @property
    def timings_s(self) -> dict[str, float]:
        """Seconds per stage so far; stages that run side by side overlap."""
        ...

    def progress(self, stage: str, fraction: float) -> None:
        """Take note of a stage's fraction done; from any thread. May raise, to stop the stage."""
        ...

    def check(self) -> None:
        """May raise, to stop between stages."""
        ...

    async def run(self, stage: str, work: Callable[[], Awaitable[T]], kind: type[T]) -> T:
        """Run a stage whose result is of a type that pydantic can turn into JSON and back."""
        ...


class DirectSteps:
    """Steps that are simply run, for callers without a durable job.

    Args:
        report: told of the progress of each stage.
    """

    def __init__(self, report: StageProgress = ignore_progress) -> None:
        self.timings_s: dict[str, float] = {}
        self.progress = report

    def check(self) -> None:
        """Do nothing: these steps are never stopped."""

    async def run(self, stage: str, work: Callable[[], Awaitable[T]], kind: type[T]) -> T:  # noqa: ARG002
        began = time.perf_counter()
        try:
            return await work()
        finally:
            self.timings_s[stage] = round(time.perf_counter() - began, 3)
