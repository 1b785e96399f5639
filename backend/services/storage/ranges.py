"""Byte ranges as every store understands them: from `start` up to, not including, `end`."""

from __future__ import annotations

from backend.errors import InvalidInput


def validated_range(start: int, end: int | None) -> None:
    """Do nothing for a range that makes sense.

    Raises:
        InvalidInput: it starts before 0 or ends before it starts.
    """
    if start < 0 or (end is not None and end < start):
        raise InvalidInput(f"Bytes {start} to {end} are not a range.")
