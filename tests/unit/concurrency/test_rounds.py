"""Rounds go on after an error in one, and the log says only what has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from backend.concurrency.rounds import Rounds
from backend.errors import StorageUnavailable

pytestmark = pytest.mark.anyio


class Work:
    """Does in each round what its script says, then nothing."""

    def __init__(self, *script: BaseException | None) -> None:
        self.script = list(script)
        self.rounds = 0

    async def __call__(self) -> None:
        self.rounds += 1
        if self.script and (error := self.script.pop(0)) is not None:
            raise error


@asynccontextmanager
async def running(work: Work, pause_s: Callable[[], float] = lambda: 0.01) -> AsyncIterator[None]:
    rounds = Rounds("counting", work, pause_s)
    rounds.start()
    yield
    await rounds.stop()


async def until_rounds(work: Work, number: int) -> None:
    async with asyncio.timeout(5):
        while work.rounds < number:
            await asyncio.sleep(0.01)


async def test_an_error_that_repeats_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    work = Work(*[StorageUnavailable("Down.")] * 3, StorageUnavailable("Denied."), None)
    async with running(work):
        await until_rounds(work, 7)
    said = [record.getMessage() for record in caplog.records if record.name == "backend.concurrency.rounds"]
    assert said == ["counting failed: Down.", "counting failed: Denied.", "counting succeeded again"]


async def test_an_unexpected_error_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(RuntimeError("odd"))
    async with running(work):
        await until_rounds(work, 2)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None


async def test_a_round_that_waited_for_something_cancelled_is_not_the_last() -> None:
    work = Work(asyncio.CancelledError())
    async with running(work):
        await until_rounds(work, 3)


async def test_no_pause_is_so_short_that_rounds_spin() -> None:
    work = Work()
    async with running(work, lambda: 0.0):
        await asyncio.sleep(0.2)
    assert 0 < work.rounds <= 21


async def test_a_round_that_is_hurried_does_not_wait_for_its_turn() -> None:
    work = Work()
    rounds = Rounds("counting", work, lambda: 60.0)
    rounds.start()
    await until_rounds(work, 1)
    rounds.hurry()
    await until_rounds(work, 2)
    await rounds.stop()


async def test_the_first_round_may_come_later() -> None:
    work = Work()
    rounds = Rounds("counting", work, lambda: 60.0)
    rounds.start(after_s=60.0)
    await asyncio.sleep(0.05)
    assert work.rounds == 0
    rounds.hurry()
    await until_rounds(work, 1)
    await rounds.stop()
