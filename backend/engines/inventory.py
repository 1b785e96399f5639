"""The transcription models on this disk, and what their files tell about them: languages, size, which engine runs them.

Nothing is loaded and no network is touched.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from backend.engines.catalogue import (
    KNOWN_MODELS,
    WHISPER_PREFERENCE,
    WHISPER_VOCABULARIES,
    Kind,
    files_bytes,
    find_embedded,
    find_in_catalogue,
    find_known,
    find_whisper,
    kind_of,
    own_models,
    size_bytes,
)

Engine = Literal["faster-whisper", "parakeet", "moonshine", ""]

MOONSHINE = "moonshine"
PARAKEET_FULL = "parakeet-v3-full"
PARAKEETS = (PARAKEET_FULL, "parakeet-v3")
PARAKEET_LANGUAGES = frozenset(
    {"bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "hr", "hu", "it"}
    | {"lt", "lv", "mt", "nl", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "uk"}
)
"""Those of parakeet-tdt-0.6b-v3, by its model card."""
_CATALOGUE_NAMES = {MOONSHINE: "moonshine-tiny-en"}
_BEFORE = WHISPER_PREFERENCE.index("tiny")
PREFERENCE = (*PARAKEETS, *WHISPER_PREFERENCE[:_BEFORE], MOONSHINE, *WHISPER_PREFERENCE[_BEFORE:])
"""From the lowest published error rate up; of one size the multilingual model comes first."""

_WORD_TIMES = frozenset({"faster-whisper", "moonshine", "parakeet"})
_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")


@dataclass(frozen=True, slots=True)
class SpeechModel:
    """A transcription model on this disk.

    Attributes:
        name: what users call it: a catalogue name, `moonshine`, or the name of its directory.
        engine: what runs it; empty: one that is not on any disk.
        path: its directory.
        size_bytes: of its files, and about what it takes in memory.
        languages: ISO 639-1 codes it transcribes; empty: not known before it is loaded.
        identifies: whether it can tell which of them is spoken.
    """

    name: str
    engine: Engine
    path: Path
    size_bytes: int
    languages: frozenset[str]
    identifies: bool = False

    @property
    def word_times(self) -> bool:
        """Whether every word comes with its time, and not only every segment."""
        return self.engine in _WORD_TIMES

    @property
    def label(self) -> str:
        """What is shown of it before its engine is loaded."""
        return {"moonshine": "moonshine tiny-en", "": self.name}.get(self.engine, f"{self.engine} {self.name}")

    def is_called(self, name: str) -> bool:
        """Whether a user means this model; the catalogue has other names for some."""
        known = find_in_catalogue(name)
        return self.name == name or (known is not None and known.name in (self.name, _CATALOGUE_NAMES.get(self.name)))

    def knows(self, language: str | None) -> bool:
        """Whether it transcribes a language; None: one that is not known."""
        return language is None or not self.languages or language in self.languages


def transcription_models(models_dir: Path | None = None, also: str | None = None) -> list[SpeechModel]:
    """Every transcription model on this disk, the one to prefer first.

    The order is that of the published error rates (docs/MODELS.md). A model of the user's own comes last, because
    nothing is known of it.

    Args:
        models_dir: looked in before the user's hub cache.
        also: a Whisper model by directory or hub repository, where settings name one.
    """
    found = [model for name in PREFERENCE if (model := _find(name, models_dir))]
    found += [_own(path) for path in own_models(models_dir)]
    if also and find_in_catalogue(also) is None and (path := find_whisper(also, models_dir)):
        found.append(_whisper(name_of(also), path))
    return list({model.name: model for model in found}.values())


def name_of(model: str) -> str:
    """What users call a Whisper model that a setting gives as a name, a hub repository or a directory."""
    known = find_in_catalogue(model)
    return known.name if known else Path(model).name


def _find(name: str, models_dir: Path | None) -> SpeechModel | None:
    if name == MOONSHINE:
        package = find_embedded()
        assets = package / "assets" / "tiny-en" if package else None
        return SpeechModel(MOONSHINE, "moonshine", assets, size_bytes(assets), frozenset({"en"})) if assets else None
    if name in PARAKEETS:
        known = KNOWN_MODELS[name]
        path = find_known(known, models_dir)
        return _parakeet(name, path, known.kind, PARAKEET_LANGUAGES) if path else None
    path = find_whisper(name, models_dir)
    return _whisper(name, path) if path else None


def _own(path: Path) -> SpeechModel:
    """A model of the user's own, of which only the files tell what it is."""
    kind = kind_of(path)
    if kind is None or kind == "whisper":
        return _whisper(path.name, path)
    return _parakeet(path.name, path, kind, frozenset())


def _parakeet(name: str, path: Path, kind: Kind, languages: frozenset[str]) -> SpeechModel:
    return SpeechModel(name, "parakeet", path, files_bytes(kind, path), languages)


def _whisper(name: str, path: Path) -> SpeechModel:
    languages = _languages_of(path)
    return SpeechModel(name, "faster-whisper", path, size_bytes(path), languages, identifies=len(languages) > 1)


def _languages_of(path: Path) -> frozenset[str]:
    """The languages a Whisper model has tokens for; English alone if it has no use for them."""
    vocabulary = next((path / name for name in WHISPER_VOCABULARIES if (path / name).is_file()), None)
    if vocabulary is None:
        return frozenset()
    state = vocabulary.stat()
    return _read_languages(vocabulary, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read_languages(vocabulary: Path, _changed_ns: int, _size_bytes: int) -> frozenset[str]:
    try:
        text = vocabulary.read_text(encoding="utf-8")
        tokens = json.loads(text) if vocabulary.suffix == ".json" else text.split("\n")[:-1]
    except (OSError, ValueError):
        return frozenset()  # loading it will say what is wrong
    # CTranslate2 tells the kinds apart like this: only a multilingual vocabulary has the empty token.
    if "" not in tokens:
        return frozenset({"en"})
    return frozenset(match[1] for token in tokens if (match := _LANGUAGE_TOKEN.fullmatch(token)))
