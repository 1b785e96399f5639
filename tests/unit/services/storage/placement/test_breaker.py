"""The circuit breaker: what opens it, what does not, and the one canary that closes it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import (
    ObjectExists,
    ObjectMissing,
    ObjectRefused,
    StorageError,
    StorageFull,
    StorageMisconfigured,
    StorageUnavailable,
)
from backend.services.storage.placement.breaker import FAILURES_IN_A_ROW, FAILURES_OF_THE_LAST, OF_THE_LAST, Breaker
from backend.services.storage.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

DOWN = StorageUnavailable("The store is down.")


class WaitingStore(MemoryStore):
    """Its canary comes back when it is let go."""

    def __init__(self) -> None:
        super().__init__("waiting")
        self.let_go = asyncio.Event()

    async def check(self, *, write: bool = True) -> None:
        self.calls += 1
        self.asked_to_write = write
        await self.let_go.wait()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def breaker(store: MemoryStore) -> AsyncIterator[Breaker]:
    breaker = Breaker(store, retry_after_s=60, patience_s=12)
    yield breaker
    await breaker.close()


async def test_a_few_failures_in_a_row_open_it(breaker: Breaker) -> None:
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed(DOWN, took_s=1)
        assert breaker.state == "closed"
    breaker.failed(DOWN, took_s=1)
    assert (breaker.state, breaker.error, breaker.view().cause) == ("open", DOWN, "unavailable")


async def test_a_success_in_between_starts_the_count_again(breaker: Breaker) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        breaker.failed(DOWN, took_s=5)
        breaker.succeeded()
    assert breaker.state == "closed"


async def test_one_long_silence_is_enough_and_one_slow_answer_is_not(breaker: Breaker) -> None:
    breaker.failed(DOWN, took_s=600)
    assert breaker.state == "closed"
    breaker.failed(StorageUnavailable("It said nothing.", answered=False), took_s=13)
    assert breaker.state == "open"


async def test_half_of_the_last_saves_failing_opens_it(breaker: Breaker) -> None:
    for _ in range(FAILURES_OF_THE_LAST - 1):
        breaker.succeeded()
        breaker.failed(DOWN)
        assert breaker.state == "closed"
    breaker.succeeded()
    breaker.failed(DOWN)
    assert breaker.state == "open"


@given(st.lists(st.booleans(), max_size=60))
def test_it_opens_exactly_by_its_rule(outcomes: list[bool]) -> None:
    async def scenario() -> None:
        breaker, seen = Breaker(MemoryStore(), retry_after_s=60, patience_s=12), list[bool]()
        for good in outcomes:
            breaker.succeeded() if good else breaker.failed(DOWN)
            seen.append(good)
            row = seen[-FAILURES_IN_A_ROW:] == [False] * FAILURES_IN_A_ROW
            half = not good and seen[-OF_THE_LAST:].count(False) >= FAILURES_OF_THE_LAST
            if row or half:
                assert breaker.state == "open"
                break
            assert breaker.state == "closed"
        await breaker.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "cause"),
    [(StorageMisconfigured("No such key id."), "configuration"), (StorageFull("Over quota."), "full")],
)
async def test_what_waiting_does_not_heal_opens_it_at_once(
    breaker: Breaker, error: StorageError, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    breaker.failed(error)
    assert (breaker.state, breaker.view().cause) == ("open", cause)
    assert caplog.records[-1].levelno == logging.ERROR and str(error) in caplog.text and f"({cause})" in caplog.text


@pytest.mark.parametrize("kind", [ObjectMissing, ObjectRefused, StorageError])
async def test_what_concerns_one_object_never_opens_it(breaker: Breaker, kind: type[StorageError]) -> None:
    for _ in range(30):
        breaker.failed(kind("This one."), took_s=60)
    assert breaker.state == "closed"
    assert not issubclass(ObjectExists, StorageError), "a taken key is no failure of the store"


async def test_a_refused_object_is_poison_only_if_a_canary_is_taken(breaker: Breaker, store: MemoryStore) -> None:
    await breaker.refused()
    assert (breaker.state, store.calls) == ("closed", 1)
    store.failure = ObjectRefused("Everything is.")
    await breaker.refused()
    assert (breaker.state, breaker.view().cause) == ("open", "configuration")


async def test_half_open_while_the_one_canary_is_out() -> None:
    store = WaitingStore()
    breaker = Breaker(store, retry_after_s=60, patience_s=12)
    breaker.open(DOWN)
    questions = [asyncio.create_task(breaker.ask()) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert (breaker.state, store.calls, store.asked_to_write) == ("half_open", 1, True)
    assert breaker.error is DOWN, "saves still go elsewhere"
    store.let_go.set()
    await asyncio.gather(*questions)
    assert (breaker.state, store.calls) == ("closed", 1)
    await breaker.close()


async def test_a_canary_that_dies_keeps_it_open_and_the_next_one_closes_it(store: MemoryStore) -> None:
    breaker = Breaker(store, retry_after_s=0.02, patience_s=12)
    store.failure = StorageMisconfigured("Writing is denied.")
    breaker.open(DOWN)
    while store.calls < 2:
        await asyncio.sleep(0.005)
    assert (breaker.state, str(breaker.error)) == ("open", "Writing is denied.")
    store.failure = None
    while breaker.state != "closed":
        await asyncio.sleep(0.005)
    assert breaker.view() == breaker.view().__class__("closed", None, None, None)


async def test_the_cool_down_is_jittered_and_told(store: MemoryStore) -> None:
    pauses = set()
    for _ in range(20):
        breaker = Breaker(store, retry_after_s=100, patience_s=12)
        breaker.open(DOWN)
        await asyncio.sleep(0)
        view = breaker.view()
        assert view.retry_in_s is not None and 79 <= view.retry_in_s <= 120
        assert view.retry_at is not None and abs(view.retry_at.timestamp() - time.time() - view.retry_in_s) < 1
        pauses.add(view.retry_in_s)
        await breaker.close()
    assert len(pauses) > 5


async def test_a_check_that_fails_opens_it(breaker: Breaker, store: MemoryStore) -> None:
    store.failure = DOWN
    await breaker.ask()
    assert breaker.state == "open"


def test_two_event_loops_share_one_question() -> None:
    begun, let_go = threading.Event(), threading.Event()

    class SlowStore(MemoryStore):
        async def check(self, *, write: bool = True) -> None:
            self.calls += 1
            begun.set()
            await asyncio.to_thread(let_go.wait, 5)

    store = SlowStore()
    breaker = Breaker(store, retry_after_s=60, patience_s=12)
    first = threading.Thread(target=lambda: asyncio.run(breaker.ask()))
    first.start()
    assert begun.wait(5)

    async def second() -> None:
        asking = asyncio.create_task(breaker.ask())
        await asyncio.sleep(0.05)
        let_go.set()
        await asking

    asyncio.run(second())
    first.join(5)
    assert store.calls == 1


async def test_a_success_that_comes_late_does_not_close_it(breaker: Breaker) -> None:
    breaker.open(DOWN)
    breaker.succeeded()
    assert breaker.state == "open"
