"""Who counts as dead."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from backend.database.models import Worker
from backend.services.jobs.heartbeat import DEAD_AFTER_S, ProcessIdentity, is_dead, this_process

NOW = datetime(2026, 1, 15, tzinfo=UTC)
LONG = DEAD_AFTER_S + 1


def worker(identity: ProcessIdentity, silent_s: float) -> Worker:
    return Worker(
        id=identity.id,
        host=identity.host,
        boot_id=identity.boot_id,
        pid=identity.pid,
        heartbeat_at=NOW - timedelta(seconds=silent_s),
    )


ELSEWHERE = ProcessIdentity("elsewhere-1-1", "elsewhere", "another boot", 1)


@pytest.mark.parametrize(
    ("silent_s", "steady_s", "dead"), [(1, 60, False), (LONG, 60, True), (LONG, 5, False), (DEAD_AFTER_S, 60, False)]
)
def test_a_process_elsewhere_is_dead_when_it_was_silent_for_long_and_the_database_was_there(
    silent_s: float, steady_s: float, dead: bool
) -> None:
    assert is_dead(worker(ELSEWHERE, silent_s), NOW, steady_s) == dead


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    own = this_process()
    gone = replace(own, id=f"{own.host}-{child}-1", pid=child)
    assert is_dead(worker(gone, 0), NOW, 0)


def test_a_process_whose_number_another_one_has_by_now_is_dead() -> None:
    assert is_dead(worker(replace(this_process(), id=f"{socket.gethostname()}-{os.getpid()}-1"), 0), NOW, 0)


def test_this_process_lives() -> None:
    assert not is_dead(worker(this_process(), 0), NOW, 60)


def test_the_same_number_on_another_machine_says_nothing() -> None:
    assert not is_dead(worker(replace(ELSEWHERE, pid=os.getpid()), 1), NOW, 60)
