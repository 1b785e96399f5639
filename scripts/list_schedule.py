"""Write the table of periodic work in docs/AUDIO_ARCHITECTURE.md from the code's table; `make schedule` runs it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from backend.config import Settings
from backend.domain.lifecycle import DAY_S, Cadence
from backend.services.jobs.schedule.table import Entry, Means, open_schedule

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "AUDIO_ARCHITECTURE.md"
BEGIN, END = "<!-- schedule: written by `make schedule` -->\n", "<!-- end of schedule -->\n"


def render_schedule() -> str:
    """The table as Markdown, with the settings' defaults."""
    settings = Settings.model_construct()
    schedule = open_schedule(upload_expires_s=settings.upload_expires_s, jobs_keep_days=settings.jobs_keep_days)
    return "".join(_lines(schedule.values()))


def replace_schedule(text: str, table: str) -> str:
    """A document with its table of periodic work replaced.

    Raises:
        ValueError: the document has no marked place for it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The document lacks the markers {BEGIN.strip()} and {END.strip()}.")
    return f"{before}{begin}\n{table}\n{end}{after}"


def _lines(entries: Iterable[Entry]) -> Iterable[str]:
    yield "| kind | what | every | where | as | from age |\n| --- | --- | --- | --- | --- | --- |\n"
    for entry in entries:
        kept = _time(entry.retention.keep_s) if entry.retention else ""
        means = entry.means if entry.means != Means.TASK else "task" if entry.rows else "task, no rows"
        yield f"| `{entry.kind}` | {entry.what} | {_every(entry.cadence)} | {entry.place} | {means} | {kept} |\n"


def _every(cadence: Cadence | None) -> str:
    if cadence is None:
        return "on command"
    jitter = f" ± {cadence.jitter:.0%}" if cadence.jitter else ""
    shared = f", shared by {cadence.shared_by}" if cadence.shared_by else ""
    return f"{_time(cadence.every_s)}{jitter}{shared}"


def _time(seconds: float) -> str:
    return f"{seconds / DAY_S:g} d" if seconds >= DAY_S else f"{seconds:g} s"


if __name__ == "__main__":
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(replace_schedule(document, render_schedule()), encoding="utf-8")
