"""Verify: one inspection, or a bounded part of it, as a report. Changes nothing."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backend.services.reconciliation.findings import Checked, Finding, Unchecked
from backend.services.reconciliation.inspection import Inspection

MAX_FINDINGS = 1000
"""At most this many are listed; all are counted."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where to begin, and when to stop although there is more.

    Attributes:
        cursor: of an earlier report; None: at the beginning.
        max_objects: stop after about this many rows and objects.
        max_seconds: begin no batch after this time.
        interrupted: asked after each batch.
    """

    cursor: str | None = None
    max_objects: float = math.inf
    max_seconds: float = math.inf
    interrupted: Callable[[], bool] = lambda: False

    def stopper(self) -> Callable[[Checked], bool]:
        """Return what says after each batch whether to stop; the clock runs from now."""
        began = time.monotonic()

        def is_over(checked: Checked) -> bool:
            looked_at = checked.rows + checked.objects
            late = time.monotonic() - began >= self.max_seconds
            return late or looked_at >= self.max_objects or self.interrupted()

        return is_over


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What an inspection found.

    Attributes:
        cursor: where the next part begins; None: this was the last one.
        counts: kind of finding → how many.
        findings: the first of them.
        unchecked: per store what could not be looked at.
    """

    deep: bool
    cursor: str | None
    checked: Checked
    counts: Mapping[str, int]
    findings: tuple[Finding, ...]
    unchecked: tuple[Unchecked, ...]
    seconds: float

    @property
    def status(self) -> str:
        """`incomplete` says that something could not be looked at; `findings` or `clean` that everything was."""
        if self.unchecked:
            return "incomplete"
        return "findings" if self.counts else "clean"

    @property
    def exit_code(self) -> int:
        """For cron: 0 clean, 1 findings, 2 could not look at everything."""
        return {"clean": 0, "findings": 1, "incomplete": 2}[self.status]


async def verify(inspection: Inspection, *, deep: bool, bounds: Bounds) -> VerifyReport:
    """Run an inspection within its bounds.

    Raises:
        InvalidInput: the cursor is malformed.
        DatabaseUnavailable
    """
    began = time.perf_counter()
    is_over, cursor = bounds.stopper(), None
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    async for batch in inspection.batches(bounds.cursor):
        counts.update(found.kind for found in batch.findings)
        findings += batch.findings[: MAX_FINDINGS - len(findings)]
        if is_over(inspection.checked):
            cursor = batch.cursor
            break
    return VerifyReport(
        deep=deep,
        cursor=cursor,
        checked=inspection.checked,
        counts=dict(counts),
        findings=tuple(findings),
        unchecked=inspection.unchecked.all,
        seconds=round(time.perf_counter() - began, 3),
    )
