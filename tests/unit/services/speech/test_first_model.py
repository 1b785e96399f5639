"""A first model that arrives while another one serves."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from backend.domain.transcript import Transcription
from backend.engines.inventory import SpeechModel
from backend.engines.progress import Progress
from backend.engines.scripted import ScriptedTranscriber
from backend.errors import EngineUnavailable
from backend.services.speech.first_model import FirstModel
from backend.services.speech.models import Models

MOONSHINE = SpeechModel("moonshine", "moonshine", Path(), 10, frozenset({"en"}))
BASE = SpeechModel("base", "faster-whisper", Path(), 10, frozenset({"en", "de"}), identifies=True)


def models(there: list[SpeechModel]) -> Models:
    return Models(
        lambda: list(there),
        lambda _: ScriptedTranscriber(Transcription(())),
        memory_bytes=100,
        idle_s=0,
        look_again_s=0,
    )


def finish(first: FirstModel) -> None:
    first.start()
    first._thread.join(10)


def test_the_model_is_loaded_as_soon_as_it_is_here(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    there = [MOONSHINE]
    found = models(there)
    found.warm()
    finish(FirstModel(found, "base", lambda _: there.insert(0, BASE)))
    assert (found.default, found.ready) == (BASE, True)
    assert "until it is here, moonshine hears recordings" in caplog.text
    assert "the model base is here" in caplog.text


def test_nothing_is_fetched_where_a_multilingual_model_is() -> None:
    def fetch(_progress: Progress) -> None:
        raise AssertionError("fetched")

    first = FirstModel(models([BASE, MOONSHINE]), "base", fetch)
    first.start()
    assert not first._thread.is_alive()
    first.stop()


def test_a_server_without_an_index_says_why_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def fetch(_progress: Progress) -> None:
        raise EngineUnavailable("pip does not get it")

    found = models([MOONSHINE])
    finish(FirstModel(found, "base", fetch))
    assert "the model base was not fetched: pip does not get it" in caplog.text
    assert found.default == MOONSHINE


def test_a_server_that_stops_does_not_wait_for_the_download() -> None:
    begun = threading.Event()

    def fetch(progress: Progress) -> None:
        begun.set()
        while True:
            progress(0.0)
            time.sleep(0.01)

    first = FirstModel(models([MOONSHINE]), "base", fetch)
    first.start()
    assert begun.wait(10)
    first.stop()
    assert not first._thread.is_alive()
