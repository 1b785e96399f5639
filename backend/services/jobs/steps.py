"""The steps of a job as the durable engine keeps them, the notes of how far they are, and the way to stop them."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

from backend.domain.jobs import overall_progress
from backend.errors import DatabaseUnavailable, StorageUnavailable
from backend.observability.tracing import span
from backend.services.jobs.durable.engine import run_step
from backend.services.jobs.durable.values import Retries

T = TypeVar("T")

RETRIES = Retries(attempts=5, first_wait_s=0.5, passing=(StorageUnavailable, DatabaseUnavailable))
"""About eight seconds: a store that is away for longer has a fallback, or an operator."""


class Interruption(StrEnum):
    """Why a running job is stopped from outside."""

    LOST = "lost"
    """Cancelled, deleted or taken over: its result is not wanted any more."""

    STOPPING = "stopping"
    """This process ends; another one goes on."""


class Interrupted(BaseException):
    """No Exception, so that it is neither handled as a failure nor kept as the result of a step."""

    def __init__(self, reason: Interruption) -> None:
        super().__init__(reason)
        self.reason = reason


class JobProgress:
    """How far one job is; written by engine threads, read by the event loop.

    Args:
        report: told of every stage's fraction, from any thread.
    """

    def __init__(self, report: Callable[[str, float], None]) -> None:
        self._report = report
        self._stages: dict[str, float] = {}
        self._interruption: Interruption | None = None
        self._lock = threading.Lock()
        self.stage: str | None = None
        self.advanced = False
        """Whether this attempt has finished a step that no earlier one had."""

    @property
    def fraction(self) -> float:
        with self._lock:
            return overall_progress(self._stages)

    def note(self, stage: str, fraction: float) -> None:
        """Take note, and stop the caller if the job is not to go on.

        Raises:
            Interrupted
        """
        self.check()
        with self._lock:
            self._stages[stage] = fraction
            self.stage = stage
        self._report(stage, fraction)

    def interrupt(self, reason: Interruption) -> None:
        """Let the job end at its next sign of progress."""
        self._interruption = self._interruption or reason

    def check(self) -> None:
        """Raises Interrupted if the job is not to go on."""
        if self._interruption is not None:
            raise Interrupted(self._interruption)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once for each kind of result: that takes longer than using it a hundred times."""
    return TypeAdapter(kind)


class DurableSteps:
    """`backend.services.speech.steps.Steps` whose results survive the process."""

    def __init__(self, progress: JobProgress) -> None:
        self.timings_s: dict[str, float] = {}
        self._began = time.perf_counter()
        self._progress = progress

    def progress(self, stage: str, fraction: float) -> None:
        self._progress.note(stage, fraction)

    def check(self) -> None:
        self._progress.check()

    async def run(self, stage: str, work: Callable[[], Awaitable[T]], kind: type[T]) -> T:
        adapter: TypeAdapter[T] = _adapter(cast(Hashable, kind))
        self._progress.check()
        done: T | None = None

        async def step() -> tuple[str, float]:
            nonlocal done
            began = time.perf_counter()
            with span(stage):
                done = await work()
            return adapter.dump_json(done).decode(), round(time.perf_counter() - began, 3)

        value, self.timings_s[stage] = await run_step(stage, step, RETRIES)
        self.timings_s["total"] = round(time.perf_counter() - self._began, 3)
        self._progress.advanced |= done is not None
        self._progress.note(stage, 1.0)
        # What was computed here need not be read back.
        return done if done is not None else adapter.validate_json(value)
