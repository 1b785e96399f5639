"""From what windows were heard to segments: words where somebody speaks, each in its place. Pure functions.

Whisper's word times come from its attention, which a stray sound can catch: a word may begin a minute before its
sentence. And it writes a sentence where there is none ("Thank you for watching"). Both show where no speech is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from backend.domain.sentences import text_without_loops, words_without_loops
from backend.domain.transcript import Segment, Word
from backend.engines.whisper.decoding import HeardText
from backend.engines.whisper.rounds import HeardWindow
from backend.engines.whisper.windows import Speech

PAUSE_S = 1.0
"""At such a pause a segment ends, or it could span minutes of silence."""
NEAR_S = 0.5
"""How far from speech a word may be: word times and speech detection each err by some tenths of a second."""
A_WORD_S = 0.25
"""Less speech than that near a word is a stray sound; a text that has no more anywhere is left as it is."""
LONGEST_WORD_S = 1.5
"""A longer word holds a pause."""


def segments_of(heard: Sequence[HeardWindow], speech: Speech, duration_s: float) -> Iterator[Segment]:
    """Segments in time order.

    Args:
        heard: windows in time order.
        speech: where speech is; text elsewhere is dropped.
        duration_s: of the recording; times are clamped to it.
    """
    for one in heard:
        for text in one.heard.texts:
            words = [_absolute(word, one.window.start_s, duration_s) for word in text.words]
            if words:
                kept = words_without_loops(settled(words, speech), ended=one.heard.ended)
                yield from (_joined(run) for run in _runs(kept) if any(word.text.strip() for word in run))
            elif plain := _plain(text, one, speech, duration_s):
                yield plain


def settled(words: Sequence[Word], speech: Speech) -> list[Word]:
    """The words of one text where speech is: none if all are far from it, else stray ones beside the rest.

    Args:
        words: with times.
        speech: where speech is.
    """
    near = [number for number, word in enumerate(words) if _speech_near(word, speech) >= A_WORD_S]
    if not near and not any(_speech_near(word, speech) for word in words):
        return []
    near = near or list(range(len(words)))
    placed = [_shortened(word, speech, last=number == len(words) - 1) for number, word in enumerate(words)]
    for number in range(near[0] - 1, -1, -1):
        placed[number] = _ending_at(placed[number], placed[number + 1].start_s or 0.0)
    for number in range(near[-1] + 1, len(words)):
        placed[number] = _starting_at(placed[number], placed[number - 1].end_s or 0.0)
    return placed


def _speech_near(word: Word, speech: Speech) -> float:
    return speech.seconds((word.start_s or 0.0) - NEAR_S, (word.end_s or 0.0) + NEAR_S)


def _shortened(word: Word, speech: Speech, *, last: bool) -> Word:
    """A word that holds a pause keeps only its part beside the rest: the last word its start, others their end."""
    start_s, end_s = word.start_s or 0.0, word.end_s or 0.0
    if end_s - start_s <= LONGEST_WORD_S:
        return word
    parts = speech.within(start_s, end_s) or [(start_s, end_s)]
    if last:
        first_s = parts[0][0]
        return replace(word, start_s=first_s, end_s=min(parts[0][1], first_s + LONGEST_WORD_S))
    last_s = parts[-1][1]
    return replace(word, start_s=max(parts[-1][0], last_s - LONGEST_WORD_S), end_s=last_s)


def _ending_at(word: Word, instant_s: float) -> Word:
    length_s = min(LONGEST_WORD_S / 3, (word.end_s or 0.0) - (word.start_s or 0.0))
    return replace(word, start_s=max(0.0, instant_s - length_s), end_s=instant_s)


def _starting_at(word: Word, instant_s: float) -> Word:
    length_s = min(LONGEST_WORD_S / 3, (word.end_s or 0.0) - (word.start_s or 0.0))
    return replace(word, start_s=instant_s, end_s=instant_s + length_s)


def _plain(text: HeardText, heard: HeardWindow, speech: Speech, duration_s: float) -> Segment | None:
    """A text that has no word times."""
    start_s = min(heard.window.start_s + text.start_s, duration_s)
    end_s = min(heard.window.start_s + text.end_s, duration_s)
    if not speech.within(start_s - NEAR_S, end_s + NEAR_S):
        return None
    return Segment(start_s, end_s, text_without_loops(text.text, end_s - start_s, ended=heard.heard.ended))


def _absolute(word: Word, offset_s: float, duration_s: float) -> Word:
    """In the recording's time; clamped where the library rounded past its end, or into the wrong order."""
    start_s = min(max(0.0, offset_s + (word.start_s or 0.0)), duration_s)
    return replace(word, start_s=start_s, end_s=min(max(start_s, offset_s + (word.end_s or 0.0)), duration_s))


def _runs(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Cut at pauses of `PAUSE_S` or more."""
    first = 0
    for i in range(1, len(words)):
        if (words[i].start_s or 0.0) - (words[i - 1].end_s or 0.0) >= PAUSE_S:
            yield words[first:i]
            first = i
    if words:
        yield words[first:]


def _joined(words: Sequence[Word]) -> Segment:
    text = "".join(word.text for word in words).strip()
    return Segment(words[0].start_s or 0.0, words[-1].end_s or 0.0, text, tuple(words))
