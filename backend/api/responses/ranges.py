"""What a request for part of something, or for something that has changed, asks for (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

MAX_RANGES = 32
"""A request for more of them is answered with everything: each range costs a separate read."""

_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18})")
_ETAG = re.compile(r'(?:W/)?"[^"]*"')

Span = tuple[int, int]
"""First byte, and the byte to stop before."""


class NotSatisfiable(Exception):
    """A range begins after the end."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one state of a representation from another. `etag` is strong, and quoted."""

    etag: str
    modified_at: datetime

    @property
    def last_modified(self) -> str:
        """The instant as HTTP writes it, in whole seconds."""
        return format_datetime(self.modified_at.astimezone(UTC).replace(microsecond=0), usegmt=True)

    def is_known(self, headers: Mapping[str, str]) -> bool:
        """Whether the sender of these headers has this state already."""
        if (tags := headers.get("if-none-match")) is not None:
            return tags.strip() == "*" or self.etag in [tag.removeprefix("W/") for tag in _ETAG.findall(tags)]
        try:
            since = parsedate_to_datetime(headers["if-modified-since"])
        except (KeyError, ValueError):
            return False
        return self.modified_at.replace(microsecond=0) <= (since if since.tzinfo else since.replace(tzinfo=UTC))

    def allow_ranges(self, headers: Mapping[str, str]) -> bool:
        """Whether the parts that the sender has are of this state, as far as it says."""
        return headers.get("if-range", self.etag) in (self.etag, self.last_modified)


def parse_ranges(asked: str, size_bytes: int) -> Sequence[Span] | None:
    """Return what a Range header asks for, in order and without overlaps.

    Args:
        asked: the header's value.
        size_bytes: of everything.

    Returns:
        None: the header is malformed, or asks for too many parts, and is to be ignored.

    Raises:
        NotSatisfiable: a range begins after the end.
    """
    unit, _, listed = asked.partition("=")
    parts = [part.strip() for part in listed.split(",") if part.strip()]
    found = [_RANGE.fullmatch(part) for part in parts]
    if unit.strip().lower() != "bytes" or not 0 < len(parts) <= MAX_RANGES:
        return None
    spans = [_span(match, size_bytes) for match in found if match and _is_forward(match)]
    if len(spans) < len(parts):
        return None
    if any(start >= size_bytes for start, _ in spans):
        raise NotSatisfiable
    return _merged(sorted(spans))


def _is_forward(match: re.Match[str]) -> bool:
    return not match[2] or int(match[1]) <= int(match[2])


def _span(match: re.Match[str], size_bytes: int) -> Span:
    if match[3] is not None:
        return max(0, size_bytes - int(match[3])), size_bytes
    return int(match[1]), min(size_bytes, int(match[2]) + 1) if match[2] else size_bytes


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged = [spans[0]]
    for start, end in spans[1:]:
        last_start, last_end = merged[-1]
        if start <= last_end:
            merged[-1] = last_start, max(last_end, end)
        else:
            merged.append((start, end))
    return merged
