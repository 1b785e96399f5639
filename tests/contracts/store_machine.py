"""A Hypothesis state machine that walks any store."""

from __future__ import annotations

import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from backend.errors import ObjectExists, ObjectMissing
from backend.services.storage import (
    ObjectStore,
)
from backend.services.storage.keys import audio_key
from backend.services.storage.values import NewObject
from tests.contracts.store_contract import AT, conversation, read, spooled

T = TypeVar("T")


class StoreMachine(RuleBasedStateMachine):
    """Random saves, reads and deletes against a dict. Subclasses say which store, and how to look behind it."""

    keys: Bundle[str] = Bundle("keys")
    objects: Bundle[str] = Bundle("objects")
    contents = st.binary(max_size=300)

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._exit = AsyncExitStack()
        self._portal_context = start_blocking_portal()
        self._portal: BlockingPortal = self._portal_context.__enter__()
        self.store = self.open_store(Path(self._folder.name))
        self.conversation_id = conversation()
        self.expected: dict[str, bytes] = {}
        self.key_of: dict[str, str] = {}

    def open_store(self, folder: Path) -> ObjectStore:
        raise NotImplementedError

    def leftovers(self) -> set[str] | None:
        """Return the locators the store really holds, where that can be seen."""
        return None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def finish() -> T:
            return await work

        return self._portal.call(finish)

    @rule(target=keys, name=st.sampled_from(["a.wav", "b.wav", "ü.wav"]))
    def name(self, name: str) -> str:
        return audio_key(self.conversation_id, name, AT)

    @rule(target=objects, key=keys, data=contents)
    def save(self, key: str, data: bytes) -> str:
        source = spooled(data, Path(self._folder.name))
        taken = [locator for locator in self.expected if self.key_of[locator] == key]
        put = self.store.put(NewObject(source, "audio", key, "audio/wav"))
        if taken:
            with pytest.raises(ObjectExists):
                self.run(put)
            return taken[0]
        locator = self.run(put).locator
        self.expected[locator], self.key_of[locator] = data, key
        return locator

    @rule(locator=objects, start=st.integers(0, 320), length=st.none() | st.integers(0, 320))
    def read_range(self, locator: str, start: int, length: int | None) -> None:
        end = None if length is None else start + length
        if locator not in self.expected:
            with pytest.raises(ObjectMissing):
                self.run(read(self.store, locator, start, end))
        else:
            assert self.run(read(self.store, locator, start, end)) == self.expected[locator][start:end]

    @rule(locator=objects)
    def measure(self, locator: str) -> None:
        if locator not in self.expected:
            with pytest.raises(ObjectMissing):
                self.run(self.store.stat(locator))
        else:
            assert self.run(self.store.stat(locator)).size_bytes == len(self.expected[locator])

    @rule(locator=consumes(objects))
    def delete(self, locator: str) -> None:
        self.run(self.store.delete(locator))
        self.expected.pop(locator, None)

    @rule(locator=objects)
    def delete_and_remember(self, locator: str) -> None:
        self.run(self.store.delete(locator))
        self.expected.pop(locator, None)

    @invariant()
    def holds_what_is_expected_and_nothing_else(self) -> None:
        held = self.leftovers()
        assert held is None or held == set(self.expected)

    def teardown(self) -> None:
        self.run(self.store.close())
        self._portal_context.__exit__(None, None, None)
        self._folder.cleanup()
