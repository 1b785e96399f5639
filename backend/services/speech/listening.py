"""No speech without words: stretches that diarization hears as speech and that have no words are decoded again.

And no words without speech: what engines write where nobody speaks is dropped. This holds for each engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.domain.coverage import (
    Span,
    coverage_of,
    find_gaps,
    speech_spans,
    with_found,
    without_invented,
)
from backend.domain.evidence import SpeechEvidence
from backend.domain.transcript import Coverage, Diarization, Segment, Transcription
from backend.engines.audio.samples import Audio
from backend.engines.audio.vad import speech_evidence
from backend.engines.base import TranscribeOptions, Transcriber
from backend.engines.progress import Progress

SURROUNDINGS_S = (4.0, 0.3)
"""How much of what surrounds a stretch is decoded with it: first much, for the context, then next to nothing."""
LONGEST_S = 28.0


@dataclass(frozen=True, slots=True)
class Listened:
    """A transcription after what it left out was decoded again, and what is still without words."""

    transcription: Transcription
    coverage: Coverage


def listen_again(
    transcriber: Transcriber,
    audio: Audio,
    options: TranscribeOptions,
    transcription: Transcription,
    diarization: Diarization | None,
    progress: Progress,
) -> Listened:
    """Decode again what has no words, until it has some or no surroundings are left to try.

    Args:
        transcription: what the engine heard.
        diarization: who speaks when; None: only words where nobody speaks are dropped.
        progress: called several times a second; may raise, to stop.
    """
    evidence = speech_evidence(audio, progress)
    heard = _checked(transcriber, transcription, diarization, evidence)
    speech = speech_spans(diarization, evidence)
    known = replace(options, language=options.language or transcription.language)
    for surroundings_s in SURROUNDINGS_S:
        gaps = find_gaps(heard, speech, evidence)
        if not gaps:
            break
        heard = _fill(transcriber, audio, known, heard, gaps, surroundings_s, progress)
        heard = _checked(transcriber, heard, diarization, evidence)
    return Listened(heard, coverage_of(speech, find_gaps(heard, speech, evidence)))


def _checked(
    transcriber: Transcriber, heard: Transcription, diarization: Diarization | None, evidence: SpeechEvidence
) -> Transcription:
    return without_invented(heard, diarization, evidence) if transcriber.may_invent else heard


def _fill(
    transcriber: Transcriber,
    audio: Audio,
    options: TranscribeOptions,
    heard: Transcription,
    gaps: Sequence[Span],
    surroundings_s: float,
    progress: Progress,
) -> Transcription:
    pieces = [piece for gap in gaps for piece in _pieces(gap)]
    has_times = any(segment.words for segment in heard.segments)
    margin_s = surroundings_s if has_times or not heard.segments else min(SURROUNDINGS_S)
    spans = [(max(0.0, start_s - margin_s), min(audio.duration_s, end_s + margin_s)) for start_s, end_s in pieces]
    found: list[tuple[Segment, ...]] = transcriber.transcribe_spans(audio, spans, options, progress)
    for piece, segments in zip(pieces, found, strict=True):
        heard = with_found(heard, piece, segments)
    language = heard.language or (options.language if heard.segments else None)
    return replace(heard, language=language)


def _pieces(gap: Span) -> list[Span]:
    """A gap in equal pieces that an engine can hear at once."""
    most_s = LONGEST_S - 2 * max(SURROUNDINGS_S)
    count = int((gap[1] - gap[0]) // most_s) + 1
    step_s = (gap[1] - gap[0]) / count
    return [(gap[0] + number * step_s, gap[0] + (number + 1) * step_s) for number in range(count)]
