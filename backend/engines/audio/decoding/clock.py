"""Where the samples of a stream belong on the recording's time line, which is the one that players show. Pure."""

from __future__ import annotations

TOLERANCE_S = 0.05
"""Time stamps are rounded to milliseconds and tremble; only what they are later than this counts as a gap."""
STEP_S = 0.01
"""A gap that is there from one frame to the next; what grows more slowly is a clock that runs differently."""
MAX_DRIFT = 0.02
"""Share of the time by which two clocks may differ; more is a wrong rate in the header, which players do not follow."""
RESET_S = 1.0
"""Time stamps that go back by more than this have been reset: the recording continues where it was."""


class Clock:
    """Places the frames of one stream, in the order of decoding.

    Args:
        start_s: where the stream's container begins on the time line.
        zero_s: the time stamp that the container begins with.
        limit_s: the end of the time line; no gap leads beyond it.

    Attributes:
        end_s: where the last frame ends on the time line.
        left_out: gaps that would have led beyond the limit: where they were, and how long.
    """

    def __init__(self, start_s: float, zero_s: float, limit_s: float) -> None:
        self.end_s = start_s
        self.left_out: list[tuple[float, float]] = []
        self._shift_s = start_s - zero_s
        self._limit_s = limit_s
        self._synchronous_at_s = start_s
        self._stamped_end_s: float | None = None

    def place(self, stamp_s: float | None, length_s: float, next_stamp_s: float | None = None) -> float:
        """Place a frame.

        Args:
            stamp_s: its time stamp; None: it follows the one before.
            length_s: by its number of samples.
            next_stamp_s: the time stamp of the frame after it, which tells a stray time stamp from a jump.

        Returns:
            Seconds of silence before it, mostly 0.
        """
        gap_s = self._gap(stamp_s, length_s, next_stamp_s) if stamp_s is not None else 0.0
        self.end_s += gap_s + length_s
        if stamp_s is not None:
            self._stamped_end_s = stamp_s + length_s
        return gap_s

    def _gap(self, stamp_s: float, length_s: float, next_stamp_s: float | None) -> float:
        late_s = stamp_s + self._shift_s - self.end_s
        if -RESET_S <= late_s <= TOLERANCE_S or self._is_stray(late_s, length_s, next_stamp_s):
            return 0.0
        if late_s < 0:
            self._shift_s -= late_s
            return 0.0
        if self._runs_differently(stamp_s, late_s):
            return 0.0
        if self.end_s + late_s + length_s > self._limit_s:
            self.left_out.append((self.end_s, late_s))
            self._shift_s -= late_s
            return 0.0
        self._synchronous_at_s = self.end_s + late_s
        return late_s

    def _is_stray(self, late_s: float, length_s: float, next_stamp_s: float | None) -> bool:
        """Whether the frame after this one is where it would be without this time stamp."""
        if next_stamp_s is None or abs(late_s) < RESET_S:
            return False
        next_late_s = next_stamp_s + self._shift_s - (self.end_s + length_s)
        return abs(next_late_s) < abs(next_late_s - late_s)

    def _runs_differently(self, stamp_s: float, late_s: float) -> bool:
        step_s = stamp_s - (stamp_s - late_s if self._stamped_end_s is None else self._stamped_end_s)
        return step_s < STEP_S and late_s > MAX_DRIFT * (self.end_s - self._synchronous_at_s)
