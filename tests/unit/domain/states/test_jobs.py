"""The transitions of a job: where each starts and ends, and what it sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.states import jobs as job_states
from backend.domain.states.jobs import ACTIVE, EDGES, ENDED, MAX_CRASHES, Change, JobStatus, Transition, Turn

AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
ERROR = {"kind": "ProcessingFailed", "detail": "broke"}

CHANGES: dict[Transition, Change] = {
    change.transition: change
    for change in (
        job_states.accepted(),
        job_states.claimed(worker_id="w", attempt=1, crashes=1, started_at=None, at=AT),
        job_states.progressed(stage="decode", progress=0.1, advanced=False),
        job_states.completed(result={"timings_s": {}}, at=AT),
        job_states.failed(error=ERROR, recording="spool", at=AT),
        job_states.refused(error=ERROR, at=AT),
        job_states.parked(error=ERROR, crashes=3, at=AT),
        job_states.cancelled(at=AT),
        job_states.abandoned(at=AT),
        job_states.requeued(crashes=0),
        job_states.retried(),
        job_states.erased(),
    )
}


def test_every_transition_has_an_edge_and_a_function() -> None:
    assert set(EDGES) == set(Transition) == set(CHANGES)


def test_every_state_is_either_active_or_ended() -> None:
    assert sorted((*ACTIVE, *ENDED)) == sorted(JobStatus)


@pytest.mark.parametrize("transition", Transition)
def test_a_transition_sets_the_state_in_which_it_ends(transition: Transition) -> None:
    assert CHANGES[transition].columns.get("status") == EDGES[transition].after
    assert CHANGES[transition].before == EDGES[transition].before


def test_only_a_retry_leaves_an_ended_state() -> None:
    leaving = {
        transition
        for transition, edge in EDGES.items()
        if set(edge.before) & set(ENDED) and edge.after not in (None, *edge.before)
    }
    assert leaving == {Transition.RETRY}


@pytest.mark.parametrize("transition", [t for t in Transition if EDGES[t].after is not None])
def test_only_a_running_job_has_a_worker(transition: Transition) -> None:
    before, after, columns = *(EDGES[transition].before, EDGES[transition].after), CHANGES[transition].columns
    if after == JobStatus.RUNNING:
        assert columns.get("worker_id", "kept") is not None
    elif JobStatus.RUNNING in before:
        assert columns["worker_id"] is None


@pytest.mark.parametrize("transition", [t for t in Transition if EDGES[t].after in ENDED])
def test_a_job_that_ends_says_when(transition: Transition) -> None:
    assert CHANGES[transition].columns["finished_at"] == AT


@pytest.mark.parametrize(
    ("transition", "kept"),
    [
        (Transition.COMPLETE, None),
        (Transition.FAIL, "spool"),
        (Transition.REFUSE, None),
        (Transition.PARK, "untouched"),
        (Transition.CANCEL, None),
        (Transition.ABANDON, None),
        (Transition.ERASE, None),
    ],
)
def test_the_recording_is_kept_where_a_retry_may_succeed(transition: Transition, kept: str | None) -> None:
    assert CHANGES[transition].columns.get("recording", "untouched") == kept


@pytest.mark.parametrize("transition", [Transition.COMPLETE, Transition.CANCEL, Transition.ABANDON, Transition.RETRY])
def test_a_stage_that_means_nothing_any_more_is_cleared(transition: Transition) -> None:
    assert CHANGES[transition].columns["stage"] is None


@pytest.mark.parametrize("transition", [Transition.FAIL, Transition.REFUSE, Transition.PARK, Transition.REQUEUE])
def test_the_stage_where_an_attempt_stopped_stays(transition: Transition) -> None:
    assert "stage" not in CHANGES[transition].columns


def test_an_abandoned_job_looks_like_a_cancelled_one() -> None:
    assert job_states.abandoned(at=AT).columns == job_states.cancelled(at=AT).columns


def test_a_job_that_was_taken_from_an_attempt_cannot_be_abandoned_by_it() -> None:
    assert JobStatus.QUEUED not in job_states.abandoned(at=AT).before


def test_a_claim_begins_the_next_attempt() -> None:
    assert CHANGES[Transition.CLAIM].columns["attempt"] == 2


def test_a_later_claim_keeps_when_the_job_began() -> None:
    began = AT - timedelta(hours=1)
    change = job_states.claimed(worker_id="w", attempt=1, crashes=0, started_at=began, at=AT)
    assert change.columns["started_at"] == began


def test_an_attempt_that_has_finished_a_step_forgives_the_crashes_before_it() -> None:
    assert job_states.progressed(stage="store", progress=0.9, advanced=True).columns["crashes"] == 0
    assert "crashes" not in job_states.progressed(stage="store", progress=0.9, advanced=False).columns


def test_a_running_job_that_can_be_claimed_has_lost_its_process() -> None:
    assert job_states.crashes_at_claim(JobStatus.RUNNING, 1) == 2
    assert job_states.crashes_at_claim(JobStatus.QUEUED, 1) == 1


@given(st.sampled_from(JobStatus), st.integers(0, 2 * MAX_CRASHES))
def test_the_turn_of_a_job_follows_from_its_state_and_its_crashes(status: JobStatus, crashes: int) -> None:
    turn = job_states.turn_of(status, crashes)
    if status in ENDED:
        assert turn is Turn.SKIP
    elif crashes == 0:
        assert turn is Turn.RUN
    else:
        assert turn is (Turn.PARK if crashes >= MAX_CRASHES else Turn.RUN_ALONE)
