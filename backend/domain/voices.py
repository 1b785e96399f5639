"""Whose voice is it: embeddings of speakers against the prints of people. Pure functions; no rows, no engines.

A print is how a person sounded in one recording; a person's voice is the mean of their prints. Embeddings are compared
by cosine similarity.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.domain.text import is_hidden
from backend.domain.transcript import NamedSpeaker, SpeakerStats, Transcript
from backend.errors import InvalidInput

Voice = tuple[float, ...]
"""An L2-normalised embedding."""

# Measured with pyannote community-1 (benchmarks/voices.py): two utterances of different people reach 0.33 at most, two
# of the same person fall below 0.5 in 1 of 100 pairs. 0.5 lies nearer to the same person, because a wrong name is worse
# than none: speakers that a telephone or a distant microphone blends into each other reach 0.46.
THRESHOLD = 0.5
# How much less similar everybody else must be. It guards people with alike voices, and those enrolled twice.
MARGIN = 0.1

MAX_NAME = 200
RESERVED_NAME = re.compile(r"(speaker\s*\d+|unknown)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SpeakerIdentity:
    """Data kept about a speaker besides the numbered `label`; `person_id` is None if the voice is unknown."""

    label: str
    voice: Voice
    person_id: str | None = None


def recognise(
    voices: Mapping[str, Voice],
    people: Mapping[str, Sequence[Voice]],
    threshold: float = THRESHOLD,
    margin: float = MARGIN,
) -> dict[str, str]:
    """Which speakers of a recording are known.

    Args:
        voices: label → how that speaker sounds.
        people: person → prints. Prints of another length come from another model and are left out.
        threshold: least similarity to a person's mean print.
        margin: how much less similar the runner-up among the people must be.

    Returns:
        label → person, one to one: if several speakers sound like one person, the most similar is that person, and the
        others stay unknown. Doubtful matches are left out. The same input gives the same output.
    """
    size = len(next(iter(voices.values()), ()))
    means = {person: mean for person, prints in people.items() if (mean := _mean(prints, size)) is not None}
    if not means or not size:
        return {}
    similarity = _unit(np.array([*voices.values()])) @ np.array([*means.values()]).T
    found: dict[str, tuple[float, str]] = {}
    for label, row in zip(voices, similarity, strict=True):
        best = int(row.argmax())
        person, score = list(means)[best], float(row[best])
        runner_up = float(np.delete(row, best).max(initial=-np.inf))
        clear = score >= threshold and score - runner_up >= margin
        if clear and score > found.get(person, (-np.inf, ""))[0]:
            found[person] = score, label
    return {label: person for person, (_, label) in found.items()}


def resembling(voices: Mapping[int, Voice], prints: Sequence[Voice], threshold: float = THRESHOLD) -> list[int]:
    """The keys of voices that are as near to any of a person's prints, or to their mean, as recognition asks for.

    Broader than `recognise` on purpose: it serves forgetting, where one voice too many does no harm.
    """
    found = []
    for size in {len(sample) for sample in prints} - {0}:
        same_size = np.array([sample for sample in prints if len(sample) == size])
        references = _unit(np.vstack([_unit(same_size), _unit(same_size).mean(axis=0)]))
        near = {key: voice for key, voice in voices.items() if len(voice) == size}
        if near:
            similarity = _unit(np.array([*near.values()])) @ references.T
            found += [key for key, best in zip(near, similarity.max(axis=1), strict=True) if best >= threshold]
    return found


def show_names(transcript: Transcript, names: Mapping[str, str]) -> Transcript:
    """The transcript with names in place of the labels that have one."""
    return _rename(transcript, names)


def show_labels(transcript: Transcript, speakers: Sequence[NamedSpeaker]) -> Transcript:
    """The transcript with labels in place of the names: the inverse of `show_names`."""
    return _rename(transcript, {speaker.name: speaker.label for speaker in speakers})


def named_speakers(
    stats: Mapping[str, SpeakerStats], identities: Mapping[str, SpeakerIdentity]
) -> tuple[NamedSpeaker, ...]:
    """Return the speakers of a transcript, in the order of `stats`.

    Args:
        stats: by the name that the transcript shows.
        identities: by the same name, for speakers with a voice; one without an identity is shown by its label.
    """
    return tuple(_named(name, stat, identities.get(name)) for name, stat in stats.items())


def person_name(text: str) -> str:
    """A name as it is stored: Unicode NFC, single blanks, none around it.

    Raises:
        InvalidInput: empty or too long, could break a transcript, or could be taken for a numbered speaker.
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        raise InvalidInput("The name is empty.")
    if len(name) > MAX_NAME:
        raise InvalidInput(f"The name has {len(name)} characters; at most {MAX_NAME} are kept.")
    if any(is_hidden(letter) or letter in "<>" for letter in name):
        raise InvalidInput("The name has invisible characters, '<' or '>', which break subtitles. Leave them out.")
    if RESERVED_NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is what unknown speakers are called. Choose another name.")
    return name


def _named(name: str, stat: SpeakerStats, identity: SpeakerIdentity | None) -> NamedSpeaker:
    return NamedSpeaker(
        label=identity.label if identity else name,
        display_name=name if identity and identity.person_id else None,
        speaking_time_s=stat.speaking_time_s,
        share=stat.share,
        word_count=stat.word_count,
        segment_count=stat.segment_count,
    )


def _rename(transcript: Transcript, names: Mapping[str, str]) -> Transcript:
    segments = tuple(
        replace(segment, speaker=names.get(segment.speaker or "", segment.speaker)) for segment in transcript.segments
    )
    return replace(transcript, segments=segments)


def _mean(prints: Sequence[Voice], size: int) -> NDArray[np.float64] | None:
    """(size,) the direction of a person's prints; None without any of that size."""
    same_size = [sample for sample in prints if len(sample) == size]
    if not same_size or not size:
        return None
    mean: NDArray[np.float64] = _unit(_unit(np.array(same_size)).mean(axis=0, keepdims=True))[0]
    return mean


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
