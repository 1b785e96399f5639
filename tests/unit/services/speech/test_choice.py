"""Which model hears which recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backend.domain.transcript import Segment, Transcription, Word
from backend.engines.audio.samples import Audio
from backend.engines.base import LanguageGuess, Progress, TranscribeOptions
from backend.engines.inventory import SpeechModel
from backend.engines.progress import ignore_progress
from backend.engines.scripted import ScriptedTranscriber
from backend.errors import InvalidInput, ModelMissing
from backend.services.speech.choice import choose, doubts
from backend.services.speech.models import Models
from backend.services.speech.values import Choice
from tests.support.random_models import as_audio, silence

ENGLISH, MANY = frozenset({"en"}), frozenset({"en", "de", "ja"})
EUROPE = frozenset({"en", "de"})


class Listener(ScriptedTranscriber):
    """Hears a given language in every recording."""

    def __init__(self, guess: LanguageGuess | None) -> None:
        super().__init__(Transcription(()))
        self._guess = guess

    def identify(self, tracks: Sequence[Audio], progress: Progress) -> LanguageGuess | None:
        return self._guess


def model(name: str, languages: frozenset[str], *, size: int = 10) -> SpeechModel:
    identifies = name not in ("moonshine", "parakeet") and len(languages) > 1
    return SpeechModel(name, "faster-whisper", Path(), size, languages, identifies)


def models(*found: SpeechModel, heard: tuple[str, float] | None = None, default: str = "auto") -> Models:
    guess = LanguageGuess(*heard, 20.0) if heard else None
    return Models(lambda: found, lambda _: Listener(guess), default=default, memory_bytes=1000, idle_s=0)


MOONSHINE, BASE = model("moonshine", ENGLISH), model("base", MANY)
TINY, PARAKEET = model("tiny", MANY), model("parakeet", EUROPE)


@pytest.fixture
def audio() -> Iterator[Audio]:
    with as_audio(silence(1.0)) as recording:
        yield recording


def chosen(of: Models, audio: Audio, **options: str) -> Choice:
    return choose(of, [audio], TranscribeOptions(**options), ignore_progress)


def test_the_best_model_that_knows_the_language_heard_is_taken(audio: Audio) -> None:
    assert chosen(models(PARAKEET, BASE, MOONSHINE, heard=("de", 0.9)), audio) == Choice("parakeet", "de")
    assert chosen(models(PARAKEET, BASE, MOONSHINE, heard=("ja", 0.9)), audio) == Choice("base", "ja")


def test_the_built_in_model_hears_english_and_nothing_else(audio: Audio) -> None:
    assert chosen(models(MOONSHINE, TINY, heard=("en", 0.9)), audio) == Choice("moonshine", "en")
    assert chosen(models(MOONSHINE, TINY, heard=("de", 0.9)), audio) == Choice("tiny", "de")


def test_a_given_language_is_believed(audio: Audio) -> None:
    assert chosen(models(MOONSHINE, TINY, heard=("en", 0.9)), audio, language="de") == Choice("tiny", "de")


def test_a_language_that_no_model_knows_is_refused_with_the_command_that_helps(audio: Audio) -> None:
    with pytest.raises(InvalidInput, match=r"No model .* 'de': `aperta models pull small`"):
        chosen(models(MOONSHINE), audio, language="de")


def test_without_a_model_that_tells_languages_apart_nothing_is_claimed(audio: Audio) -> None:
    assert chosen(models(MOONSHINE), audio) == Choice("moonshine", None)


def test_a_recording_in_which_nobody_speaks_has_no_language(audio: Audio) -> None:
    assert chosen(models(BASE, MOONSHINE), audio) == Choice("base", None)


def test_the_model_that_was_asked_for_is_taken(audio: Audio) -> None:
    assert chosen(models(BASE, MOONSHINE, heard=("en", 0.9)), audio, model="moonshine") == Choice("moonshine", "en")


def test_an_english_model_refuses_a_recording_that_is_surely_german(audio: Audio) -> None:
    with pytest.raises(InvalidInput, match=r"moonshine does not know: 'de' \(93% sure\).*aperta models pull"):
        chosen(models(BASE, MOONSHINE, heard=("de", 0.93)), audio, model="moonshine")
    with pytest.raises(InvalidInput, match="moonshine does not know"):
        chosen(models(BASE, MOONSHINE, heard=("de", 0.93), default="moonshine"), audio)


def test_an_english_model_hears_what_may_be_german_and_says_so(audio: Audio) -> None:
    found = chosen(models(BASE, MOONSHINE, heard=("de", 0.6)), audio, model="moonshine")
    assert (found.model, found.language) == ("moonshine", None)
    assert "sounds like 'de' (60% sure)" in found.warnings[0]


def test_an_uncertain_language_is_said(audio: Audio) -> None:
    found = chosen(models(BASE, heard=("de", 0.4)), audio)
    assert found.language == "de"
    assert "uncertain: taken for 'de' (40% sure)" in found.warnings[0]


def test_a_model_that_is_not_there_is_refused_with_those_that_are(audio: Audio) -> None:
    with pytest.raises(ModelMissing, match=r"no model '\.\./base' .* There are: auto, base, moonshine\."):
        chosen(models(BASE, MOONSHINE), audio, model="../base")


def test_auto_may_be_asked_for_whatever_the_default_is(audio: Audio) -> None:
    found = models(BASE, MOONSHINE, heard=("de", 0.9), default="moonshine")
    assert chosen(found, audio, model="auto") == Choice("base", "de")


def test_the_language_is_heard_by_a_model_in_memory_rather_than_by_a_small_one(audio: Audio) -> None:
    large, small = model("large", MANY, size=100), model("small", MANY, size=10)
    found = models(PARAKEET, large, small, heard=("de", 0.9))
    assert found.identifier(PARAKEET) == small
    with found.lease(large):
        assert found.identifier(PARAKEET) == large
    assert found.identifier(small) == small


def heard(probability: float, n_words: int = 12) -> Transcription:
    words = tuple(Word(f" w{number}", number, number + 0.5, probability) for number in range(n_words))
    return Transcription((Segment(0.0, 20.0, "…", words),), "en")


def test_words_that_the_built_in_model_is_not_sure_of_are_doubted() -> None:
    [doubt] = doubts(Choice("moonshine"), heard(0.4))
    assert doubt.startswith("This does not look like English") and "aperta models pull" in doubt


@pytest.mark.parametrize(
    ("choice", "transcription"),
    [
        (Choice("moonshine"), heard(0.8)),
        (Choice("moonshine"), heard(0.4, n_words=3)),
        (Choice("moonshine"), Transcription(())),
        (Choice("moonshine", "en"), heard(0.4)),
        (Choice("base"), heard(0.4)),
    ],
)
def test_nothing_is_doubted_that_is_likely_short_or_said_to_be_english(
    choice: Choice, transcription: Transcription
) -> None:
    assert doubts(choice, transcription) == ()
