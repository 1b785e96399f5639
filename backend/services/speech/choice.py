"""Chooses the model and the language for one recording."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import fmean
from typing import cast

from backend.domain.transcript import Transcription
from backend.engines.audio.samples import Audio
from backend.engines.base import Identifier, LanguageGuess, Progress, TranscribeOptions
from backend.engines.inventory import MOONSHINE, SpeechModel
from backend.errors import InvalidInput
from backend.services.speech.models import REMEDY, Models
from backend.services.speech.values import Choice

logger = logging.getLogger(__name__)

SURE = 0.8
"""So sure that a language is spoken which the model does not know, the recording is refused instead of transcribed."""
UNSURE = 0.5
"""Less sure than this, the answer says so."""
LIKE_ENGLISH, MIN_WORDS = 0.55, 8
"""Moonshine's words are less likely than this in a language that is not English; fewer words tell nothing."""


def choose(models: Models, tracks: Sequence[Audio], options: TranscribeOptions, progress: Progress) -> Choice:
    """Which model hears a recording, and in which language; blocks while a model listens for the language.

    Args:
        models: those on this disk.
        tracks: the recording, or its channels.
        options: what the caller asked for.
        progress: called several times a second. What it raises is raised here.

    Raises:
        ModelMissing: the model asked for is not on this disk.
        InvalidInput: no model may hear this language.
        EngineUnavailable: the model that tells languages apart cannot be loaded.
    """
    models.check(options)
    asked = models.asked_for(options)
    if options.language:
        return Choice((asked or models.best(options.language)).name, options.language)
    guess = _identify(models, asked, tracks, progress)
    if guess is None:
        return Choice((asked or models.best(None)).name)
    model = asked or models.best(guess.language)
    warnings = () if guess.probability >= UNSURE else (_uncertain(guess),)
    if model.knows(guess.language):
        return Choice(model.name, guess.language, warnings)
    if guess.probability >= SURE:
        raise InvalidInput(
            f"This recording is in a language that {model.name} does not know: {guess.language!r} "
            f"({guess.probability:.0%} sure). Leave `model` out to have the best model on this disk chosen, or give "
            f"`language` if this is wrong; {REMEDY}."
        )
    return Choice(model.name, None, (_foreign(model, guess),))


def doubts(choice: Choice, heard: Transcription) -> tuple[str, ...]:
    """What the words say against their language, where nobody gave it and no model could hear it.

    Moonshine hears English in every language, but is not sure of the words: the mean of their probabilities was 0.26 to
    0.47 on recordings in seven other languages, and 0.74 to 0.96 on English of ten words or more, meetings too.
    """
    if choice.model != MOONSHINE or choice.language is not None:
        return ()
    sure = [word.probability for segment in heard.segments for word in segment.words if word.probability is not None]
    if len(sure) < MIN_WORDS or fmean(sure) >= LIKE_ENGLISH:
        return ()
    return (
        "This does not look like English, the only language that the built-in model knows: its words are unlikely "
        f"({fmean(sure):.0%} sure on average). If it is another language, the text is nonsense; {REMEDY}.",
    )


def _identify(
    models: Models, asked: SpeechModel | None, tracks: Sequence[Audio], progress: Progress
) -> LanguageGuess | None:
    identifier = models.identifier(asked or models.best(None))
    if identifier is None:
        return None
    with models.lease(identifier) as engine:
        guess = cast(Identifier, engine).identify(tracks, progress)
    if guess:
        logger.info("language: %s (%.0f %% sure, %s)", guess.language, guess.probability * 100, identifier.name)
    return guess


def _uncertain(guess: LanguageGuess) -> str:
    return (
        f"The language is uncertain: taken for {guess.language!r} ({guess.probability:.0%} sure). "
        "Give `language` if that is wrong."
    )


def _foreign(model: SpeechModel, guess: LanguageGuess) -> str:
    return (
        f"This may not be a language that {model.name} knows: it sounds like {guess.language!r} "
        f"({guess.probability:.0%} sure)."
    )
