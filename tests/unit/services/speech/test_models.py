"""The transcription models of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.domain.transcript import Transcription
from backend.engines.base import TranscribeOptions
from backend.engines.inventory import SpeechModel
from backend.engines.lazy import Lazy
from backend.engines.scripted import ScriptedTranscriber
from backend.errors import EngineUnavailable, InvalidInput
from backend.services.speech.models import Models

MOONSHINE = SpeechModel("moonshine", "moonshine", Path(), 10, frozenset({"en"}))
BASE = SpeechModel("base", "faster-whisper", Path(), 10, frozenset({"en", "de"}), identifies=True)


def models(*found: SpeechModel, default: str = "auto") -> Models:
    engine = ScriptedTranscriber(Transcription(()), "loaded engine")
    return Models(lambda: found, lambda _: engine, default=default, memory_bytes=1000, idle_s=0)


def test_the_default_is_the_best_model_that_is_not_for_one_language_alone() -> None:
    assert models(MOONSHINE, BASE).default == BASE
    assert models(MOONSHINE).default == MOONSHINE
    assert models(BASE, MOONSHINE, default="moonshine").default == MOONSHINE


def test_ready_means_that_the_default_is_in_memory() -> None:
    found = models(BASE, MOONSHINE)
    with found.lease(MOONSHINE):
        assert not found.ready
    found.warm()
    assert found.ready


def test_the_name_tells_what_runs_once_it_is_loaded() -> None:
    found = models(BASE, MOONSHINE)
    assert (found.engine_name("base"), found.engine_name("moonshine")) == ("faster-whisper base", "moonshine tiny-en")
    found.warm()
    assert found.engine_name("base") == "loaded engine"


def test_the_states_say_what_is_loaded_and_how_fast_it_was() -> None:
    found = models(BASE, MOONSHINE)
    found.warm()
    found.note("base", 60.0, 4.0)
    found.note("base", 40.0, 6.0)
    assert [(s.model.name, s.default, s.loaded, s.times_real_time) for s in found.states()] == [
        ("base", True, True, 10.0),
        ("moonshine", False, False, None),
    ]


def test_a_model_that_was_just_fetched_is_seen_without_a_new_start() -> None:
    there = [MOONSHINE]
    engine = ScriptedTranscriber(Transcription(()))
    found = Models(lambda: list(there), lambda _: engine, memory_bytes=10, idle_s=0, look_again_s=0)
    assert found.default == MOONSHINE
    there.insert(0, BASE)
    assert found.default == BASE


def test_a_model_refuses_a_language_before_it_is_loaded() -> None:
    with pytest.raises(InvalidInput, match=r"moonshine knows only English, not 'de'.*aperta models pull small"):
        models(BASE, MOONSHINE).check(TranscribeOptions(language="de", model="moonshine"))


def test_without_any_model_the_command_that_helps_is_named() -> None:
    with pytest.raises(EngineUnavailable, match="aperta models pull small"):
        models().warm()
    assert models().states() == []


def test_a_lone_engine_is_its_own_default() -> None:
    lone = Models.only(Lazy("scripted", lambda: ScriptedTranscriber(Transcription(()))))
    assert (lone.default.name, lone.ready) == ("scripted", False)
    lone.check(TranscribeOptions(language="xx"))
