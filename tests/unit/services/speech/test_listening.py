"""What an engine left out is decoded again; what stays without words is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from backend.domain.transcript import Diarization, Segment, SpeakerTurn, Transcription, Word
from backend.engines.audio.samples import Audio
from backend.engines.base import Progress, TranscribeOptions
from backend.engines.progress import ignore_progress
from backend.engines.scripted import ScriptedTranscriber
from backend.services.speech.listening import LONGEST_S, Listened, listen_again
from tests.support.random_models import as_audio, silence, vowels

DURATION_S = 24.0


class Forgetful(ScriptedTranscriber):
    """Heard the first seconds only; hears a word each half second of what it is asked again, if it is to."""

    may_invent = True

    def __init__(self, *, hears: bool) -> None:
        super().__init__(Transcription((words_between(2.0, 8.0),), "en"))
        self._hears = hears
        self.asked: list[tuple[float, float]] = []
        self.languages: list[str | None] = []

    def transcribe_spans(
        self, audio: Audio, spans: Sequence[tuple[float, float]], options: TranscribeOptions, progress: Progress
    ) -> list[tuple[Segment, ...]]:
        self.asked += spans
        self.languages.append(options.language)
        return [(words_between(*span),) if self._hears else () for span in spans]


def words_between(start_s: float, end_s: float) -> Segment:
    instants = [float(at_s) for at_s in np.arange(start_s, end_s - 0.4, 0.5)]
    words = tuple(Word(f" w{round(at_s)}", at_s, at_s + 0.4, 0.9) for at_s in instants)
    return Segment(start_s, end_s, "".join(word.text for word in words).strip(), words)


@pytest.fixture(scope="module")
def talk() -> Iterator[Audio]:
    """Speech from 2 to 20 s."""
    with as_audio(np.concatenate([silence(2), vowels(18), silence(4)])) as audio:
        yield audio


SPOKEN = (SpeakerTurn(2.0, 20.0, "a"),)
DIARIZATION = Diarization(SPOKEN, SPOKEN)


def listen(engine: Forgetful, audio: Audio, diarization: Diarization | None = DIARIZATION) -> Listened:
    heard = engine.transcribe(audio, TranscribeOptions(), diarization, ignore_progress)
    return listen_again(engine, audio, TranscribeOptions(), heard, diarization, ignore_progress)


def test_what_was_left_out_is_heard_again_with_its_surroundings(talk: Audio) -> None:
    engine = Forgetful(hears=True)
    listened = listen(engine, talk)
    assert listened.coverage.speech_s == pytest.approx(18)
    assert listened.coverage.without_words_s == 0
    (start_s, end_s), *_ = engine.asked
    assert start_s < 8.0 < end_s
    instants = [word.start_s for segment in listened.transcription.segments for word in segment.words]
    assert len(instants) == len(set(instants))


def test_the_language_of_the_rest_is_that_of_what_was_heard(talk: Audio) -> None:
    engine = Forgetful(hears=True)
    listen(engine, talk)
    assert engine.languages[0] == "en"


def test_what_stays_without_words_is_said_in_seconds(talk: Audio) -> None:
    coverage = listen(Forgetful(hears=False), talk).coverage
    assert 10 < coverage.without_words_s < 12.5
    assert all(7.5 < start_s < end_s <= 20 for start_s, end_s in coverage.without_words)


def test_no_span_is_longer_than_engines_hear(talk: Audio) -> None:
    engine = Forgetful(hears=False)
    listen(engine, talk)
    assert all(0 < end_s - start_s <= LONGEST_S for start_s, end_s in engine.asked)


def test_without_a_diarization_speech_detection_says_where_words_are_missing(talk: Audio) -> None:
    engine = Forgetful(hears=True)
    listen(engine, talk, None)
    assert engine.asked


def test_a_recording_that_is_silent_has_no_words_and_no_speech() -> None:
    with as_audio(silence(DURATION_S)) as audio:
        listened = listen(Forgetful(hears=True), audio)
    assert listened.transcription == Transcription()
    assert listened.coverage.speech_s == 0
