"""Windows: the stretches of a recording that Whisper hears at once, cut where nobody speaks. Pure functions.

Nothing is cut out of a window: silences inside it stay, since Whisper hears pauses as well as words. What lies between
two windows holds no speech.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Span = tuple[float, float]
"""Start and end in seconds."""

WINDOW_S = 28.0
"""Longest window; Whisper hears 30 s at once."""
FULL_ENOUGH_S = 20.0
"""From this length on a window may end, at the longest pause that comes before `WINDOW_S`."""
PADDING_S = 0.4
"""Most of the silence before and after its speech that belongs to a window; neighbours share a shorter pause."""


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch to decode. `origin` tells windows apart that began as different ones."""

    start_s: float
    end_s: float
    origin: int = 0

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Speech:
    """Where a recording has speech: stretches in time order that do not overlap."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        self._ends = [end_s for _, end_s in spans]

    def within(self, start_s: float, end_s: float) -> list[Span]:
        """The parts of stretches that lie between two instants."""
        found: list[Span] = []
        for own_start_s, own_end_s in self.spans[bisect_left(self._ends, start_s) :]:
            if own_start_s >= end_s:
                break
            if (part := (max(own_start_s, start_s), min(own_end_s, end_s)))[0] < part[1]:
                found.append(part)
        return found

    def seconds(self, start_s: float, end_s: float) -> float:
        """Seconds of speech between two instants."""
        return sum(last - first for first, last in self.within(start_s, end_s))


def cut_windows(speech: Sequence[Span], quietest: Callable[[float, float], float], duration_s: float) -> list[Window]:
    """Windows of at most `WINDOW_S` that hold all speech.

    Args:
        speech: stretches of speech in time order.
        quietest: the best instant between two to cut speech that has no pause.
        duration_s: of the recording.
    """
    spans = _short(speech, quietest)
    groups: list[list[Span]] = []
    first = 0
    while first < len(spans):
        last = _last_of_window(spans, first)
        groups.append(list(spans[first : last + 1]))
        first = last + 1
    edges = [-PADDING_S * 2, *(edge for group in groups for edge in (group[0][0], group[-1][1])), duration_s * 2]
    return [
        Window(
            max(0.0, edges[2 * number + 1] - _padding(edges[2 * number], edges[2 * number + 1])),
            min(duration_s, edges[2 * number + 2] + _padding(edges[2 * number + 2], edges[2 * number + 3])),
        )
        for number in range(len(groups))
    ]


def rest_of(window: Window, done_s: float, speech: Speech, least_s: float) -> Window | None:
    """What is left of a window after the instant up to which it was decoded, if enough of it is speech.

    Args:
        least_s: seconds of speech from which on another decoding is worth while.
    """
    left = speech.within(done_s, window.end_s)
    if sum(end_s - start_s for start_s, end_s in left) < least_s:
        return None
    return Window(max(done_s, left[0][0] - PADDING_S), window.end_s, window.origin)


def _short(speech: Sequence[Span], quietest: Callable[[float, float], float]) -> list[Span]:
    """Stretches, those cut that are longer than a window."""
    spans: list[Span] = []
    for start_s, end_s in speech:
        while end_s - start_s > WINDOW_S:
            cut_s = quietest(start_s + WINDOW_S / 2, start_s + WINDOW_S)
            spans.append((start_s, cut_s))
            start_s = cut_s
        spans.append((start_s, end_s))
    return spans


def _last_of_window(spans: Sequence[Span], first: int) -> int:
    """The number of the stretch that ends the window that begins with `first`."""
    start_s = spans[first][0]
    fitting = [first]
    for number in range(first + 1, len(spans)):
        if spans[number][1] - start_s > WINDOW_S:
            break
        fitting.append(number)
    if fitting[-1] == len(spans) - 1:
        return fitting[-1]
    pauses = {number: spans[number + 1][0] - spans[number][1] for number in fitting}
    ripe = [number for number in fitting if spans[number][1] - start_s >= FULL_ENOUGH_S]
    return max(ripe or fitting[-1:], key=lambda number: pauses[number])


def _padding(end_s: float, start_s: float) -> float:
    return min(PADDING_S, max(0.0, (start_s - end_s) / 2))
