"""Which speech has words: stretches to listen to again, what stays without words, and words where nobody speaks.

Pure functions on spans, (start, end) in seconds, in time order and without overlap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from backend.domain.evidence import LITTLE_S, NOTHING, SpeechEvidence
from backend.domain.transcript import Coverage, Diarization, Segment, Transcription, Word

Span = tuple[float, float]

BESIDE_WORD_S = 0.4
"""Speech so close before or after a word counts as the word's: word times err, and people draw out ends."""
LONGEST_WORD_S = 1.2
"""A word does not count as longer than that, or a word drawn over a hole would hide it."""
LEAST_GAP_S = 1.0
"""Shorter gaps are hesitations and breaths."""
LEAST_SPEECH = 0.3
"""Share of a gap that must be likely speech; else it is noise, music or another sound."""
STRAY_S = 0.5
"""Words further than this from every turn are stray."""
UNLIKELY_WORD = 0.1
"""Stray words less likely than this are none, whatever sounds there."""


def speech_spans(diarization: Diarization | None, evidence: SpeechEvidence) -> list[Span]:
    """Where somebody speaks: the diarization's turns but for those that are other sounds; without one, by evidence."""
    if diarization is None:
        return evidence.spans()
    turns = united((turn.start_s, turn.end_s) for turn in diarization.turns)
    return [span for span in turns if evidence.most(*span) >= NOTHING]


def find_gaps(transcription: Transcription, speech: Sequence[Span], evidence: SpeechEvidence) -> list[Span]:
    """Stretches of speech that have no words and are long enough to hold some."""
    gaps = without(speech, _word_spans(transcription.segments))
    return [gap for gap in gaps if _may_hold_words(gap, evidence)]


def coverage_of(speech: Sequence[Span], gaps: Sequence[Span]) -> Coverage:
    """Seconds of speech, and of that which has no words."""
    return Coverage(
        round(_total(speech), 2), round(_total(gaps), 2), tuple((round(a, 2), round(b, 2)) for a, b in gaps)
    )


def together(parts: Iterable[Coverage]) -> Coverage:
    """The coverage of several tracks; stretches of the same time count once for each."""
    parts = list(parts)
    places = sorted(span for part in parts for span in part.without_words)
    speech_s, without_s = sum(part.speech_s for part in parts), sum(part.without_words_s for part in parts)
    return Coverage(round(speech_s, 2), round(without_s, 2), tuple(places))


def without_invented(
    transcription: Transcription, diarization: Diarization | None, evidence: SpeechEvidence
) -> Transcription:
    """The transcription without what engines write where nobody speaks."""
    turns = united((turn.start_s, turn.end_s) for turn in diarization.turns) if diarization else None
    kept = tuple(
        part
        for segment in transcription.segments
        for part in _real_parts(segment, turns, evidence)
        if not evidence.is_invented(part.text, part.start_s, part.end_s)
    )
    return Transcription(kept, transcription.language if kept else None)


def with_found(transcription: Transcription, gap: Span, found: Iterable[Segment]) -> Transcription:
    """The transcription with what was found in a gap; of words that lie outside it, which are there already, none."""
    new = tuple(part for segment in found if (part := _inside(segment, gap)) is not None)
    segments = sorted((*transcription.segments, *new), key=lambda segment: segment.start_s)
    return Transcription(tuple(segments), transcription.language)


def united(spans: Iterable[Span]) -> list[Span]:
    """Spans in any order, as spans that neither touch nor overlap."""
    whole: list[Span] = []
    for start_s, end_s in sorted(spans):
        if whole and start_s <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(whole[-1][1], end_s))
        else:
            whole.append((start_s, end_s))
    return whole


def without(spans: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """The parts of spans that lie in none of the others."""
    left: list[Span] = []
    number = 0
    for start_s, end_s in spans:
        while number < len(taken) and taken[number][1] <= start_s:
            number += 1
        at_s, later = start_s, number
        while later < len(taken) and taken[later][0] < end_s:
            if taken[later][0] > at_s:
                left.append((at_s, taken[later][0]))
            at_s = max(at_s, taken[later][1])
            later += 1
        if at_s < end_s:
            left.append((at_s, end_s))
    return left


def _word_spans(segments: Iterable[Segment]) -> list[Span]:
    """Where words are; of segments without word times, all of each."""
    spans: list[Span] = []
    for segment in segments:
        timed = [(w.start_s, w.end_s) for w in segment.words if w.start_s is not None and w.end_s is not None]
        own = [(start_s, min(end_s, start_s + LONGEST_WORD_S)) for start_s, end_s in timed]
        spans += own or [(segment.start_s, segment.end_s)]
    return united((start_s - BESIDE_WORD_S, end_s + BESIDE_WORD_S) for start_s, end_s in spans)


def _may_hold_words(gap: Span, evidence: SpeechEvidence) -> bool:
    length_s = gap[1] - gap[0]
    return length_s >= LEAST_GAP_S and evidence.seconds(*gap) >= max(LITTLE_S, LEAST_SPEECH * length_s)


def _real_parts(segment: Segment, turns: Sequence[Span] | None, evidence: SpeechEvidence) -> Iterator[Segment]:
    """The segment without its stray words, cut where they were."""
    if turns is None or not segment.words:
        yield segment
        return
    run: list[Word] = []
    for word in segment.words:
        if not _is_stray(word, turns, evidence):
            run.append(word)
        elif run:
            yield _part(segment, run)
            run = []
    if run:
        yield _part(segment, run)


def _is_stray(word: Word, turns: Sequence[Span], evidence: SpeechEvidence) -> bool:
    """Whether the diarization hears nobody near a word, and nothing else speaks for it either."""
    if word.start_s is None or word.end_s is None:
        return False
    around = (word.start_s - STRAY_S, word.end_s + STRAY_S)
    following = bisect_right(turns, around[0], key=lambda turn: turn[1])
    if following < len(turns) and turns[following][0] < around[1]:
        return False
    unlikely = word.probability is not None and word.probability < UNLIKELY_WORD
    return unlikely or evidence.seconds(*around) < LITTLE_S


def _part(segment: Segment, words: Sequence[Word]) -> Segment:
    if len(words) == len(segment.words):
        return segment
    text = "".join(word.text for word in words).strip()
    start_s, end_s = words[0].start_s, words[-1].end_s
    return replace(
        segment,
        start_s=segment.start_s if start_s is None else start_s,
        end_s=segment.end_s if end_s is None else end_s,
        text=text,
        words=tuple(words),
    )


def _inside(segment: Segment, gap: Span) -> Segment | None:
    """The part of a segment whose words have their middle in a gap; without word times, all of it or nothing."""
    if not segment.words:
        fits = gap[0] - BESIDE_WORD_S <= segment.start_s and segment.end_s <= gap[1] + BESIDE_WORD_S
        return segment if fits else None
    words = [w for w in segment.words if gap[0] <= ((w.start_s or 0.0) + (w.end_s or 0.0)) / 2 <= gap[1]]
    return _part(segment, words) if words else None


def _total(spans: Iterable[Span]) -> float:
    return sum(end_s - start_s for start_s, end_s in spans)
