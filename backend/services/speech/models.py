"""Which transcription model hears a recording: the one asked for, or the best on this disk for its language."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from backend.engines.base import TranscribeOptions, Transcriber
from backend.engines.inventory import SpeechModel
from backend.engines.lazy import Lazy
from backend.engines.shelf import Shelf
from backend.errors import EngineUnavailable, InvalidInput, ModelMissing

AUTO = "auto"
LOOK_AGAIN_S = 1.0
REMEDY = "`aperta models pull small` fetches one that knows 99 languages"


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model on this disk and what it does in this process.

    Attributes:
        times_real_time: seconds of audio per second of transcribing, over all that this process has finished; None
            before the first.
    """

    model: SpeechModel
    default: bool
    loaded: bool
    times_real_time: float | None


class Models:
    """The transcription models of this process.

    Args:
        find: lists the models on this disk, the one to prefer first.
        load: loads one of them.
        default: the name of the model for requests that name none, or `auto`.
        memory_bytes: as for `Shelf`.
        idle_s: as for `Shelf`; the model that a request without a language would get stays.
        look_again_s: how old a look at the disk may be.
    """

    def __init__(
        self,
        find: Callable[[], Sequence[SpeechModel]],
        load: Callable[[SpeechModel], Transcriber],
        *,
        default: str = AUTO,
        memory_bytes: int,
        idle_s: float,
        look_again_s: float = LOOK_AGAIN_S,
    ) -> None:
        self._find = find
        self._load = load
        self._default = default
        self._shelf: Shelf[Transcriber] = Shelf(memory_bytes=memory_bytes, idle_s=idle_s, keeps=self._is_default)
        self._warm = False
        self._look_again_s = look_again_s
        self._lock = threading.Lock()
        self._worked: dict[str, tuple[float, float]] = {}
        self._seen: tuple[float, Sequence[SpeechModel]] = (-math.inf, ())

    @classmethod
    def only(cls, transcriber: Lazy[Transcriber]) -> Models:
        """One engine that is not on any disk."""
        model = SpeechModel(transcriber.name, "", Path(), 0, frozenset())
        return cls(
            lambda: [model], lambda _model: transcriber.get(), default=transcriber.name, memory_bytes=0, idle_s=0
        )

    @property
    def ready(self) -> bool:
        """Whether `warm` has loaded a model; a better one that arrives later is loaded beside requests."""
        return self._warm

    @property
    def default(self) -> SpeechModel:
        """The model for a request that names neither a model nor a language.

        Raises:
            EngineUnavailable: there is no model on this disk.
            ModelMissing: the one that settings name is gone.
        """
        return self._first() if self._default == AUTO else self.get(self._default)

    def warm(self) -> None:
        """Load the default model. Raises EngineUnavailable, ModelMissing."""
        with self.lease(self.default):
            self._warm = True

    def lease(self, model: SpeechModel) -> AbstractContextManager[Transcriber]:
        """A model for as long as the block lasts; enter it off the event loop.

        Raises:
            EngineUnavailable: it cannot be loaded.
        """
        return self._shelf.lease(model.name, model.size_bytes, lambda: self._load(model))

    def engine_name(self, name: str) -> str:
        """What a model's engine calls itself (with device and precision), else what is known before it is loaded."""
        loaded = self._shelf.loaded.get(name)
        return loaded.name if loaded else next((model.label for model in self._on_disk() if model.name == name), name)

    def get(self, name: str) -> SpeechModel:
        """The model that a user means. Raises ModelMissing."""
        found = self._on_disk()
        model = next((model for model in found if model.is_called(name)), None)
        if model is None:
            there = ", ".join(model.name for model in found) or "none"
            raise ModelMissing(
                f"There is no model {name[:100]!r} on this disk. There are: {AUTO}, {there}. "
                "`aperta models list` shows what can be fetched."
            )
        return model

    def asked_for(self, options: TranscribeOptions) -> SpeechModel | None:
        """The model named by a request or else by settings; None: the best for the language. Raises ModelMissing."""
        name = options.model or self._default
        return None if name == AUTO else self.get(name)

    def expected(self, options: TranscribeOptions) -> str:
        """The name of the model that will probably hear a recording; never raises, for places that only show it."""
        try:
            return (self.asked_for(options) or self.best(options.language)).name
        except (InvalidInput, EngineUnavailable):
            return options.model or self._default

    def best(self, language: str | None) -> SpeechModel:
        """The best model on this disk for a language, or for one that is not known.

        Raises:
            InvalidInput: none of them knows the language.
            EngineUnavailable: there is no model.
        """
        if language is None:
            return self._first()
        known = next((model for model in self._on_disk() if model.knows(language)), None)
        if known is None:
            raise InvalidInput(f"No model on this disk knows the language {language!r}: {REMEDY}.")
        return known

    def found_for(self, chosen: str, options: TranscribeOptions) -> SpeechModel:
        """The model that was chosen for a recording; if it has left the disk since, another one, unless the request
        named it.

        Raises:
            ModelMissing: the request named it.
            InvalidInput: no other one knows the language.
        """
        try:
            return self.get(chosen)
        except ModelMissing:
            return self.asked_for(options) or self.best(options.language)

    def identifier(self, preferred: SpeechModel | None) -> SpeechModel | None:
        """The model that tells which language is spoken: the one that is going to be used, one in memory, or the
        smallest that can; None if none can."""
        if preferred and preferred.identifies:
            return preferred
        able = [model for model in self._on_disk() if model.identifies]
        loaded = self._shelf.loaded
        return min(able, key=lambda model: (model.name not in loaded, model.size_bytes), default=None)

    def check(self, options: TranscribeOptions) -> None:
        """Refuse what no model can do, without loading one.

        Raises:
            ModelMissing: the model is not on this disk.
            InvalidInput: it does not know the language, or none does.
        """
        model = self.asked_for(options)
        if model is None:
            self.best(options.language)
        elif not model.knows(options.language):
            raise InvalidInput(describe_unknown_language(model, options.language or ""))

    def note(self, name: str, audio_s: float, seconds: float) -> None:
        """Take note of finished work."""
        with self._lock:
            before = self._worked.get(name, (0.0, 0.0))
            self._worked[name] = (before[0] + audio_s, before[1] + seconds)

    def states(self) -> list[ModelState]:
        """Every model on this disk, the one to prefer first."""
        loaded = self._shelf.loaded
        return [
            ModelState(model, self._is_default(model.name), model.name in loaded, self._speed(model.name))
            for model in self._on_disk()
        ]

    def _on_disk(self) -> Sequence[SpeechModel]:
        """What is on this disk, looked at again after a moment: a model that was just fetched needs no new start."""
        now = time.monotonic()
        looked_at, found = self._seen
        if now - looked_at > self._look_again_s:
            found = self._find()
            self._seen = (now, found)
        return found

    def _speed(self, name: str) -> float | None:
        audio_s, seconds = self._worked.get(name, (0.0, 0.0))
        return round(audio_s / seconds, 1) if seconds else None

    def _first(self) -> SpeechModel:
        """The model that knows most of what may be spoken: the best that is not for one language alone, if any is."""
        found = self._on_disk()
        if not found:
            raise EngineUnavailable(f"There is no transcription model on this disk: {REMEDY}.")
        return next((model for model in found if len(model.languages) != 1), found[0])

    def _is_default(self, name: str) -> bool:
        try:
            return self.default.name == name
        except (EngineUnavailable, ModelMissing):
            return False


def describe_unknown_language(model: SpeechModel, language: str) -> str:
    """A sentence for a model that does not know a language."""
    knows = "only English" if model.languages == {"en"} else f"{len(model.languages)} languages"
    return (
        f"The model {model.name} knows {knows}, not {language!r}. Leave `model` out to have the best one on this disk "
        f"chosen; {REMEDY}."
    )
