"""The circuit breaker of one store: closed while it works, open while it does not, half-open while a canary is out.

While it is not closed, no save waits for the store: saves see the cause and go elsewhere. After a cool-down one small
object is written, read and deleted in the background; only that closes the breaker, since a store that answers may
still refuse writes. The pattern is Michael Nygard's ("Release It!"), the thresholds are below.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from backend.errors import StorageError, StorageFull, StorageMisconfigured, StorageUnavailable
from backend.services.storage.port import ObjectStore

logger = logging.getLogger(__name__)

BreakerState = Literal["closed", "open", "half_open"]
Cause = Literal["configuration", "full", "unavailable"]

FAILURES_IN_A_ROW = 3
OF_THE_LAST = 20
FAILURES_OF_THE_LAST = 10
"""How many transient failures open it. Each is one save, which the store's client has tried three times."""


@dataclass(frozen=True, slots=True)
class BreakerView:
    """A snapshot of a breaker.

    Attributes:
        cause: configuration (waiting does not help), full or unavailable; None while closed.
        retry_at: when the next canary goes out, if one is due.
        retry_in_s: the same from now on.
    """

    state: BreakerState
    cause: Cause | None
    retry_at: datetime | None
    retry_in_s: float | None


class Breaker:
    """Whether a store may be tried now, and if not, why.

    Transient failures open it after a few, or after one in which the store kept a caller waiting for nothing. What
    waiting does not heal (credentials, clock, bucket, rights, quota) opens it at once. What concerns one object never
    does.

    Args:
        store: the store that may fail.
        retry_after_s: the cool-down; spread by ±20 % so that many servers do not ask at once.
        patience_s: silence in a row that together lasts longer than this is enough, however few saves met it.
    """

    def __init__(self, store: ObjectStore, *, retry_after_s: float, patience_s: float) -> None:
        self._store = store
        self._retry_after_s = retry_after_s
        self._patience_s = patience_s
        self._error: StorageError | None = None
        self._canary_out = False
        self._retry_at = 0.0
        self._in_a_row = 0
        self._lost_s = 0.0
        self._outcomes: deque[bool] = deque(maxlen=OF_THE_LAST)
        self._lock = threading.Lock()
        self._question: Future[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def error(self) -> StorageError | None:
        """Why the store is not tried; None while the breaker is closed."""
        return self._error

    @property
    def trouble(self) -> StorageError | None:
        """A copy of `error` to raise, which says when the store is asked next."""
        return self.dated(self._error) if self._error is not None else None

    def dated(self, error: StorageError) -> StorageError:
        """Return a copy of an error, with the time until the store is asked next in it, if it is known.

        A copy, since an exception that is raised many times would collect all their tracebacks.
        """
        again = copy(error).with_traceback(None)
        if isinstance(again, StorageUnavailable):
            again.retry_in_s = self.view().retry_in_s
        return again

    @property
    def state(self) -> BreakerState:
        """Where it is now."""
        if self._error is None:
            return "closed"
        return "half_open" if self._canary_out else "open"

    def view(self) -> BreakerView:
        """What can be told about it."""
        if self._error is None:
            return BreakerView("closed", None, None, None)
        in_s = max(0.0, self._retry_at - time.monotonic())
        at = datetime.now(UTC) + timedelta(seconds=in_s)
        return BreakerView(self.state, _cause(self._error) or "configuration", at, round(in_s, 1))

    def succeeded(self) -> None:
        """A save was taken."""
        self._in_a_row, self._lost_s = 0, 0.0
        self._outcomes.append(True)

    def failed(self, error: StorageError, took_s: float = 0.0) -> None:
        """A save was not taken.

        Args:
            error: why.
            took_s: how long the caller waited for that.
        """
        if self._error is not None or _cause(error) is None:
            return
        self._in_a_row += 1
        if isinstance(error, StorageUnavailable) and not error.answered:
            self._lost_s += took_s
        self._outcomes.append(False)
        few = self._in_a_row < FAILURES_IN_A_ROW and self._lost_s <= self._patience_s
        rare = self._outcomes.count(False) < FAILURES_OF_THE_LAST
        if isinstance(error, StorageUnavailable) and few and rare:
            logger.warning("%s failed, %d in a row: %s", self._store.name, self._in_a_row, error)
            return
        self.open(error)

    async def refused(self) -> None:
        """The store refused one object. If it refuses a canary too, it is the store and not the object."""
        if self._error is not None:
            return
        try:
            await self._store.check(write=True)
        except StorageError as error:
            self.open(error)

    def open(self, error: StorageError) -> None:
        """Stop trying the store, and look after it in the background."""
        if str(error) != str(self._error):
            logger.log(
                logging.WARNING if isinstance(error, StorageUnavailable) else logging.ERROR,
                "%s is off, asked again every %g s (%s): %s",
                self._store.name,
                self._retry_after_s,
                _cause(error) or "refused",
                error,
            )
        self._error = error
        self.ensure_watched()

    def ensure_watched(self) -> None:
        """See to it that a canary will go out, also when the event loop that was to send it is gone."""
        if self._error is not None and not _is_running(self._watch):
            self._watch = asyncio.create_task(self._ask_until_back())

    async def ask(self) -> None:
        """Ask the store now. Concurrent callers, from any event loop, share one question."""
        with self._lock:
            question, mine = self._question, False
            if question is None or question.done():
                question, mine = Future(), True
                self._question = question
        if mine:
            self._asking = asyncio.create_task(self._answer(question))
        await asyncio.shield(asyncio.wrap_future(question))

    async def close(self) -> None:
        """Stop asking."""
        for task in (self._watch, self._asking):
            if task is not None and _is_running(task) and task.get_loop() is asyncio.get_running_loop():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _answer(self, question: Future[None]) -> None:
        try:
            await self._ask()
        finally:
            question.set_result(None)

    async def _ask(self) -> None:
        was_open = self._error is not None
        self._canary_out = was_open
        try:
            # While all is well, saves themselves prove that writing works; no need to write canaries.
            await self._store.check(write=was_open)
        except StorageError as error:
            self.open(error)
        else:
            if was_open:
                self._close_circuit()
        finally:
            self._canary_out = False

    def _close_circuit(self) -> None:
        logger.info("%s is on again", self._store.name)
        self._error = None
        self._outcomes.clear()
        self.succeeded()

    async def _ask_until_back(self) -> None:
        while self._error is not None:
            pause_s = self._retry_after_s * random.uniform(0.8, 1.2)
            self._retry_at = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)
            await self.ask()


def _cause(error: StorageError) -> Cause | None:
    """What kind of trouble of the whole store this is; None: of one object."""
    if isinstance(error, StorageMisconfigured):
        return "configuration"
    if isinstance(error, StorageFull):
        return "full"
    return "unavailable" if isinstance(error, StorageUnavailable) else None


def _is_running(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done() and not task.get_loop().is_closed()
