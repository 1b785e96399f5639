"""Attribution: text and speaker turns in, who said what out. Pure functions.

Nothing the engine heard is lost and nothing is doubled: the words that go in are the words that come out, in order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby, zip_longest
from math import inf

from backend.domain.languages.scripts import count_words
from backend.domain.sentences import ends_sentence, mend_sentences
from backend.domain.transcript import Diarization, Segment, SpeakerStats, SpeakerTurn, Transcript, Transcription, Word

UNKNOWN_SPEAKER = "unknown"
PAUSE_S = 1.0
"""A pause that ends a segment, even inside a sentence. What a turn has beyond its words is no longer a pause either."""


def attribute(transcription: Transcription, diarization: Diarization | None) -> tuple[Transcript, dict[str, str]]:
    """Give every segment a speaker and number the speakers by first appearance.

    Args:
        transcription: segments in any order. Segments that carry a speaker keep it; segments without words go to the
            speaker who talks most during them. The words of all others are read in one go: a segment is divided where
            the speaker changes, and joined to the next one inside a sentence.
        diarization: None if diarization is off: everything then belongs to one speaker.

    Returns:
        The transcript, its segments sorted by start and its speakers called "Speaker 1", "Speaker 2", …; and the
        diarization's labels mapped to those names (only for speakers who said something).
    """
    lookup = TurnLookup(diarization.exclusive if diarization else (), diarization.turns if diarization else ())
    worded = sorted((s for s in transcription.segments if s.words and s.speaker is None), key=lambda s: s.start_s)
    others = [_with_speaker(s, lookup) for s in transcription.segments if s.speaker is not None or not s.words]
    pieces = [*others, *_with_edges(_attribute_words(worded, lookup), lookup)]
    pieces.sort(key=lambda piece: (piece.start_s, piece.end_s))
    labels = _number(piece.speaker or UNKNOWN_SPEAKER for piece in pieces)
    named = tuple(replace(piece, speaker=labels[piece.speaker or UNKNOWN_SPEAKER]) for piece in pieces)
    return Transcript(named, transcription.language), labels


def speaker_stats(
    transcript: Transcript, diarization: Diarization | None, labels: dict[str, str]
) -> dict[str, SpeakerStats]:
    """Per speaker of the transcript: seconds spoken, share of all speaking time, words, segments.

    Speaking time is measured on the diarization's turns where there are any (overlaps count for both), else on the
    segments.
    """
    spoken = dict.fromkeys(transcript.speakers, 0.0)
    turns = [(labels.get(turn.speaker), turn.duration_s) for turn in diarization.turns] if diarization else []
    if not turns:
        turns = [(segment.speaker, segment.end_s - segment.start_s) for segment in transcript.segments]
    for speaker, duration_s in turns:
        if speaker in spoken:
            spoken[speaker] += duration_s
    total = sum(spoken.values())
    return {
        speaker: SpeakerStats(
            speaking_time_s=round(seconds, 3),
            share=round(seconds / total, 4) if total else 0.0,
            word_count=sum(count_words(s) for s in transcript.segments if s.speaker == speaker),
            segment_count=sum(s.speaker == speaker for s in transcript.segments),
        )
        for speaker, seconds in spoken.items()
    }


def merge_turns(turns: Iterable[SpeakerTurn], *, max_gap_s: float, max_length_s: float) -> list[SpeakerTurn]:
    """Join a speaker's neighbouring turns when no one else talks between them.

    Args:
        turns: exclusive turns in time order.
        max_gap_s: longest pause that is bridged.
        max_length_s: longest turn that joining may produce; a longer single turn stays as it is.
    """
    merged: list[SpeakerTurn] = []
    for turn in turns:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.speaker == turn.speaker
            and turn.start_s - last.end_s <= max_gap_s
            and turn.end_s - last.start_s <= max_length_s
        ):
            merged[-1] = SpeakerTurn(last.start_s, max(last.end_s, turn.end_s), last.speaker)
        else:
            merged.append(turn)
    return merged


class TurnLookup:
    """Who talks during an interval; O(log n) per question.

    Args:
        turns: exclusive ones: sorted, and not overlapping.
        overlapping: all turns, sorted; those of one speaker do not overlap.
    """

    def __init__(self, turns: Sequence[SpeakerTurn], overlapping: Sequence[SpeakerTurn] = ()) -> None:
        self._turns = turns
        self._ends = [turn.end_s for turn in turns]
        self._own: dict[str, tuple[list[float], list[float]]] = {}
        for turn in overlapping or turns:
            starts, ends = self._own.setdefault(turn.speaker, ([], []))
            starts.append(turn.start_s)
            ends.append(turn.end_s)

    def speaker(self, start_s: float, end_s: float) -> str | None:
        """The speaker with the most overlap; without any, the one whose turn is nearest; None without turns."""
        if not self._turns:
            return None
        first = bisect_left(self._ends, start_s)
        overlap: dict[str, float] = {}
        for turn in self._turns[first:]:
            if turn.start_s >= end_s:
                break
            shared = min(end_s, turn.end_s) - max(start_s, turn.start_s)
            overlap[turn.speaker] = overlap.get(turn.speaker, 0.0) + shared
        if overlap and (best := max(overlap, key=lambda speaker: overlap[speaker])) and overlap[best] > 0:
            return best
        near = self._turns[max(0, first - 1) : first + 1]
        return min(near, key=lambda turn: max(turn.start_s - end_s, start_s - turn.end_s)).speaker

    def away_s(self, word: Word, speaker: str) -> float:
        """How far the middle of a word is outside of a speaker's turns, in seconds; 0 for a word without times."""
        starts, ends = self._own.get(speaker, ([], []))
        if word.start_s is None or word.end_s is None or not starts:
            return 0.0
        middle_s = (word.start_s + word.end_s) / 2
        after = bisect_left(ends, middle_s)
        before_s = middle_s - ends[after - 1] if after else inf
        return min(before_s, max(0.0, starts[after] - middle_s) if after < len(starts) else inf)

    def around(self, speaker: str, start_s: float, end_s: float) -> tuple[float, float]:
        """A stretch of words with what their speaker's turn has around them, up to `PAUSE_S` on each side."""
        starts, ends = self._own.get(speaker, ([], []))
        first, last = bisect_right(ends, start_s), bisect_left(starts, end_s) - 1
        if first < len(starts) and starts[first] <= start_s <= starts[first] + PAUSE_S:
            start_s = starts[first]
        if last >= 0 and ends[last] - PAUSE_S <= end_s <= ends[last]:
            end_s = ends[last]
        return start_s, end_s


def _with_edges(segments: Sequence[Segment], lookup: TurnLookup) -> list[Segment]:
    """Segments from the beginnings to the ends of turns, where words begin and end near them.

    Breath and weak sounds belong to a turn, but to no word. Segments of one speaker do not come to overlap.
    """
    widened = list(segments)
    for speaker in {segment.speaker or UNKNOWN_SPEAKER for segment in segments}:
        numbers = [number for number, segment in enumerate(segments) if segment.speaker == speaker]
        floor_s = 0.0
        for number, following in zip_longest(numbers, numbers[1:]):
            segment = segments[number]
            ceiling_s = segments[following].start_s if following is not None else inf
            start_s, end_s = lookup.around(speaker, segment.start_s, segment.end_s)
            start_s = min(segment.start_s, max(start_s, floor_s))
            end_s = max(segment.end_s, min(end_s, ceiling_s))
            widened[number] = replace(segment, start_s=start_s, end_s=end_s)
            floor_s = end_s
    return widened


def _with_speaker(segment: Segment, lookup: TurnLookup) -> Segment:
    speaker = segment.speaker or lookup.speaker(segment.start_s, segment.end_s)
    return replace(segment, speaker=speaker or UNKNOWN_SPEAKER)


def _attribute_words(segments: Sequence[Segment], lookup: TurnLookup) -> list[Segment]:
    """Segments of one speaker each, from segments with words in time order."""
    words = [word for segment in segments for word in segment.words]
    known = [speaker for segment in segments for speaker in _word_speakers(segment, lookup)]
    speakers = mend_sentences(words, known, lookup.away_s)
    pieces: list[Segment] = []
    position = 0
    for segment in segments:
        theirs = speakers[position : position + len(segment.words)]
        position += len(segment.words)
        for piece in _split(segment, theirs):
            if pieces and _goes_on(pieces[-1], piece):
                pieces[-1] = _joined(pieces[-1], piece)
            else:
                pieces.append(piece)
    return pieces


def _word_speakers(segment: Segment, lookup: TurnLookup) -> list[str]:
    """One speaker per word; a word without times takes the speaker before it, or after it at the start."""
    known = [
        lookup.speaker(word.start_s, word.end_s) if word.start_s is not None and word.end_s is not None else None
        for word in segment.words
    ]
    fallback = next((speaker for speaker in known if speaker), None)
    fallback = fallback or lookup.speaker(segment.start_s, segment.end_s) or UNKNOWN_SPEAKER
    speakers: list[str] = []
    for speaker in known:
        fallback = speaker or fallback
        speakers.append(fallback)
    return speakers


def _split(segment: Segment, speakers: Sequence[str]) -> list[Segment]:
    """Cut a segment where the speaker changes; pieces stay in order and inside the segment even if words lack times."""
    if len(set(speakers)) == 1:
        return [replace(segment, speaker=speakers[0])]
    pieces: list[Segment] = []
    cursor_s = segment.start_s
    for speaker, pairs in groupby(zip(speakers, segment.words, strict=True), key=lambda pair: pair[0]):
        run = [word for _, word in pairs]
        start_s = next((word.start_s for word in run if word.start_s is not None), cursor_s)
        end_s = next((word.end_s for word in reversed(run) if word.end_s is not None), start_s)
        start_s = max(start_s, cursor_s)
        cursor_s = max(end_s, start_s)
        text = "".join(word.text for word in run).strip()
        pieces.append(Segment(start_s, cursor_s, text, tuple(run), speaker))
    return pieces


def _goes_on(first: Segment, second: Segment) -> bool:
    """Whether the engine's cut between two segments went through a sentence of one speaker."""
    near = second.start_s - first.end_s < PAUSE_S
    return first.speaker == second.speaker and near and not ends_sentence(first.words[-1])


def _joined(first: Segment, second: Segment) -> Segment:
    words = (*first.words, *second.words)
    blank = " " if second.words[0].text[:1].isspace() else ""
    end_s = max(first.end_s, second.end_s)
    return Segment(first.start_s, end_s, f"{first.text}{blank}{second.text}", words, first.speaker)


def _number(speakers: Iterable[str]) -> dict[str, str]:
    return {label: f"Speaker {number}" for number, label in enumerate(dict.fromkeys(speakers), start=1)}
