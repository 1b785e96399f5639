"""Whether a store may be tried now. After a failure it is left alone, and asked in the background until it answers."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress

from backend.errors import StorageError
from backend.services.storage.base import ObjectStore

logger = logging.getLogger(__name__)


class Availability:
    """One store's state: on, or off with a reason.

    While off, nobody waits for the store: saves see `error` and go elsewhere. A write, read and delete of a small
    object must succeed before it is on again, since a store that answers may still refuse writes.

    Args:
        store: the store that may fail.
        retry_after_s: the pause between two questions; spread by ±20 % so that many servers do not ask at once.
    """

    def __init__(self, store: ObjectStore, retry_after_s: float) -> None:
        self._store = store
        self._retry_after_s = retry_after_s
        self._error: StorageError | None = None
        self._question: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def error(self) -> StorageError | None:
        """Why the store is off; None while it is on."""
        return self._error

    def failed(self, error: StorageError) -> None:
        """Turn the store off and start to look after it in the background."""
        if str(error) != str(self._error):
            logger.warning("%s is off, asked again every %g s: %s", self._store.name, self._retry_after_s, error)
        self._error = error
        self.keep_watch()

    def keep_watch(self) -> None:
        """See to it that an unavailable store is asked again, also when the event loop that did so is gone."""
        if self._error is not None and not _is_running(self._watch):
            self._watch = asyncio.create_task(self._ask_until_back())

    async def ask(self) -> None:
        """Ask the store now. Callers at the same moment share one question and its answer."""
        if not _is_running(self._question):
            self._question = asyncio.create_task(self._ask())
        if self._question is not None:
            await asyncio.shield(self._question)

    async def close(self) -> None:
        """Stop asking."""
        for task in (self._watch, self._question):
            if task is not None and _is_running(task) and task.get_loop() is asyncio.get_running_loop():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _ask(self) -> None:
        was_off = self._error is not None
        try:
            # While all is well, saves themselves prove that writing works; no need to write canaries.
            await self._store.check(write=was_off)
        except StorageError as error:
            self.failed(error)
        else:
            if was_off and self._error is not None:
                logger.info("%s is on again", self._store.name)
            self._error = None if was_off else self._error

    async def _ask_until_back(self) -> None:
        while self._error is not None:
            await asyncio.sleep(self._retry_after_s * random.uniform(0.8, 1.2))
            await self.ask()


def _is_running(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done() and not task.get_loop().is_closed()
