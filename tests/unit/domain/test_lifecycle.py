"""Rules of time: when work is due, how long a process pauses, and what has been kept long enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backend.domain.lifecycle import BEGINNING, Cadence, Retention, uploads_cadence

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LOOK = Cadence(5.0, jitter=0.2, shared_by=5)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_work_that_never_ran_is_due() -> None:
    assert Cadence(60).is_due(NOW, None)


@pytest.mark.parametrize(("seconds", "due", "due_in_s"), [(0, False, 60), (59, False, 1), (60, True, 0), (90, True, 0)])
def test_work_is_due_a_pause_after_its_last_start(seconds: float, due: bool, due_in_s: float) -> None:
    assert (Cadence(60).is_due(NOW, ago(seconds)), Cadence(60).due_in_s(NOW, ago(seconds))) == (due, due_in_s)


def test_a_last_run_in_the_future_is_not_waited_for() -> None:
    assert Cadence(60).is_due(NOW, ago(-3600))


@pytest.mark.parametrize(("chance", "pause_s"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_the_jitter_makes_a_pause_longer_or_shorter(chance: float, pause_s: float) -> None:
    assert LOOK.pause_s(processes=1, chance=chance) == pytest.approx(pause_s)


@pytest.mark.parametrize(("processes", "pause_s"), [(0, 5.0), (5, 5.0), (10, 10.0), (500, 500.0)])
def test_a_large_fleet_runs_shared_work_as_often_as_a_small_one(processes: int, pause_s: float) -> None:
    assert LOOK.pause_s(processes=processes, chance=0.5) == pytest.approx(pause_s)


def test_work_of_each_process_keeps_its_pace_in_a_large_fleet() -> None:
    assert Cadence(0.5).pause_s(processes=500, chance=0.9) == 0.5


@pytest.mark.parametrize(("seconds", "expired"), [(9.9, False), (10, True), (11, True), (-5, False)])
def test_something_has_been_kept_long_enough_after_its_retention(seconds: float, expired: bool) -> None:
    assert Retention(10).expired(ago(seconds), NOW) is expired


def test_a_retention_longer_than_the_calendar_keeps_everything() -> None:
    forever = Retention(1e12)
    assert forever.expiry(NOW) == BEGINNING and not forever.expired(ago(1e9), NOW)


@pytest.mark.parametrize(("expires_s", "every_s"), [(60, 30), (6_000, 300), (604_800, 600)])
def test_expired_uploads_are_looked_for_often_enough_and_not_too_often(expires_s: float, every_s: float) -> None:
    assert uploads_cadence(expires_s).every_s == every_s
