"""What reports have in common: the machine they were made on, and tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

GIB = 1024**3
UNKNOWN = "\u2013"


def machine() -> dict[str, object]:
    """Processor, cores at hand, memory, day, and how busy it was in the last minute (other programs share it)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB),
        "date": datetime.now(UTC).date().isoformat(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def describe(of: dict[str, object]) -> str:
    """`machine()` in one line."""
    return (
        f"{of['processor']}, {of['cores']} cores, {of['memory_gib']} GiB, {of['date']}; "
        f"load average before: {of['load_average']}"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Markdown; the first `left` columns are flush left, the others flush right."""
    rule = ["---"] * left + ["--:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(str(cell) for cell in cells) + " |" for cells in (head, rule, *rows))
