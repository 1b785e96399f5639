"""Attribution: text and speaker turns in, who said what out. Pure functions.

Nothing the engine heard is lost and nothing is doubled: the words that go in are the words that come out, in order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from backend.domain.languages.scripts import count_words
from backend.domain.sentences import mend_sentences
from backend.domain.transcript import Diarization, Segment, SpeakerStats, SpeakerTurn, Transcript, Transcription, Word

UNKNOWN_SPEAKER = "unknown"


def attribute(transcription: Transcription, diarization: Diarization | None) -> tuple[Transcript, dict[str, str]]:
    """Give every segment a speaker and number the speakers by first appearance.

    Args:
        transcription: segments in any order. Segments that carry a speaker keep it; segments with words are split
            where the speaker changes; segments without words go to the speaker who talks most during them.
        diarization: None if diarization is off: everything then belongs to one speaker.

    Returns:
        The transcript, its segments sorted by start and its speakers called "Speaker 1", "Speaker 2", …; and the
        diarization's labels mapped to those names (only for speakers who said something).
    """
    lookup = TurnLookup(diarization.exclusive if diarization else ())
    pieces = [piece for segment in transcription.segments for piece in _attribute_segment(segment, lookup)]
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
    """Who talks during an interval; O(log n) per question on exclusive (sorted, non-overlapping) turns."""

    def __init__(self, turns: Sequence[SpeakerTurn]) -> None:
        self._turns = turns
        self._ends = [turn.end_s for turn in turns]

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


def _attribute_segment(segment: Segment, lookup: TurnLookup) -> list[Segment]:
    if segment.speaker is not None:
        return [segment]
    if not segment.words:
        return [replace(segment, speaker=lookup.speaker(segment.start_s, segment.end_s) or UNKNOWN_SPEAKER)]
    speakers = _word_speakers(segment, lookup)
    runs = [
        [word for word, _ in run]
        for _, run in groupby(zip(segment.words, speakers, strict=True), key=lambda pair: pair[1])
    ]
    names = [speaker for speaker, _ in groupby(speakers)]
    if len(runs) == 1:
        return [replace(segment, speaker=names[0])]
    return _split(segment, runs, names)


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
    return mend_sentences(segment.words, speakers)


def _split(segment: Segment, runs: list[list[Word]], speakers: list[str]) -> list[Segment]:
    """Cut a segment between runs of words; pieces stay in order and inside the segment even if words lack times."""
    pieces: list[Segment] = []
    cursor_s = segment.start_s
    for run, speaker in zip(runs, speakers, strict=True):
        start_s = next((word.start_s for word in run if word.start_s is not None), cursor_s)
        end_s = next((word.end_s for word in reversed(run) if word.end_s is not None), start_s)
        start_s = max(start_s, cursor_s)
        cursor_s = max(end_s, start_s)
        text = "".join(word.text for word in run).strip()
        pieces.append(Segment(start_s, cursor_s, text, tuple(run), speaker))
    return pieces


def _number(speakers: Iterable[str]) -> dict[str, str]:
    return {label: f"Speaker {number}" for number, label in enumerate(dict.fromkeys(speakers), start=1)}
