"""The time line: gaps, rounding, stray time stamps, and clocks that differ."""

from __future__ import annotations

import pytest

from backend.engines.audio.decoding.clock import TOLERANCE_S, Clock

FRAME_S = 0.02


def place_all(clock: Clock, stamps_s: list[float | None]) -> list[float]:
    """The gaps before frames of 20 ms with these time stamps."""
    following = [*stamps_s[1:], None]
    return [clock.place(stamp, FRAME_S, after) for stamp, after in zip(stamps_s, following, strict=True)]


def test_frames_one_after_the_other_have_no_gaps() -> None:
    clock = Clock(0.0, 0.0, 3600.0)
    assert place_all(clock, [number * FRAME_S for number in range(100)]) == [0.0] * 100
    assert clock.end_s == pytest.approx(2.0)


def test_the_container_begins_at_its_first_time_stamp() -> None:
    clock = Clock(0.0, 1.4, 3600.0)
    assert clock.place(8.4, FRAME_S) == pytest.approx(7.0)


def test_a_gap_is_as_long_as_the_time_stamps_say() -> None:
    clock = Clock(0.0, 0.0, 3600.0)
    assert place_all(clock, [0.0, 0.02, 10.04, 10.06])[2] == pytest.approx(10.0)
    assert clock.end_s == pytest.approx(10.08)


def test_rounded_and_trembling_time_stamps_make_no_gaps() -> None:
    clock = Clock(0.0, 0.0, 3600.0)
    trembling = [round(number * FRAME_S + (0.03 if number % 7 == 3 else 0.0), 3) for number in range(500)]
    assert sum(place_all(clock, trembling)) == 0.0


def test_small_losses_add_up_to_one_gap() -> None:
    clock = Clock(0.0, 0.0, 3600.0)
    stamps = [number * FRAME_S for number in range(200) if number % 50]
    place_all(clock, stamps)
    assert clock.end_s == pytest.approx(200 * FRAME_S, abs=TOLERANCE_S + FRAME_S)


def test_a_single_stray_time_stamp_is_ignored() -> None:
    clock = Clock(0.0, 0.0, 3600.0)
    assert sum(place_all(clock, [0.0, 0.02, 500.0, 0.06, 0.08])) == 0.0
    assert clock.end_s == pytest.approx(0.1)


def test_time_stamps_that_begin_anew_go_on_where_the_recording_was() -> None:
    clock = Clock(0.0, 100.0, 3600.0)
    stamps = [100.0 + number * FRAME_S for number in range(100)] + [50.0 + number * FRAME_S for number in range(100)]
    assert sum(place_all(clock, list(stamps))) == 0.0
    assert clock.end_s == pytest.approx(4.0)


def test_frames_without_time_stamps_follow_on() -> None:
    clock = Clock(5.0, 0.0, 3600.0)
    assert place_all(clock, [None, None, None]) == [0.0] * 3
    assert clock.end_s == pytest.approx(5.06)


def test_a_wrong_rate_in_the_header_does_not_tear_speech_apart() -> None:
    clock = Clock(0.0, 0.0, 3600.0)
    assert sum(place_all(clock, [number * FRAME_S * 1.08 for number in range(1000)])) == 0.0


def test_a_clock_that_runs_slightly_differently_is_followed() -> None:
    clock = Clock(0.0, 0.0, 36_000.0)
    place_all(clock, [number * FRAME_S * 1.0005 for number in range(100_000)])
    assert clock.end_s == pytest.approx(2001.0, abs=2 * TOLERANCE_S)


def test_a_jump_beyond_the_longest_recording_is_left_out_and_told() -> None:
    clock = Clock(0.0, 0.0, 60.0)
    assert sum(place_all(clock, [0.0, 0.02, 9000.0, 9000.02])) == 0.0
    assert clock.end_s == pytest.approx(0.08)
    assert clock.left_out == [pytest.approx((0.04, 8999.96))]
