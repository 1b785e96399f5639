"""Transcripts as text, SRT and WebVTT."""

from __future__ import annotations

import re

from backend.domain.rendering.formats import to_srt, to_text, to_vtt
from backend.domain.transcript import Segment, Transcript

SHORT = Transcript(
    (
        Segment(0.5, 2.0, "Hello there.", speaker="Speaker 1"),
        Segment(2.5, 3.0, "How are you?", speaker="Speaker 1"),
        Segment(3661.25, 3662.0, "Fine & <well>.", speaker="Speaker 2"),
    )
)
LONG = Transcript((Segment(0, 30, " ".join(f"word{n}" for n in range(100)), speaker="Speaker 1"),))


def test_text_joins_a_speakers_neighbouring_segments() -> None:
    assert to_text(SHORT) == "Speaker 1: Hello there. How are you?\nSpeaker 2: Fine & <well>."


def test_srt_numbers_its_cues_and_uses_a_comma() -> None:
    assert to_srt(SHORT).startswith("1\n00:00:00,500 --> 00:00:02,000\nSpeaker 1: Hello there.\n\n2\n")
    assert "3\n01:01:01,250 --> 01:01:02,000\nSpeaker 2: Fine & <well>.\n" in to_srt(SHORT)


def test_vtt_escapes_what_would_be_markup() -> None:
    assert to_vtt(SHORT).startswith("WEBVTT\n\n00:00:00.500 --> 00:00:02.000\n<v Speaker 1>Hello there.\n\n")
    assert "<v Speaker 2>Fine &amp; &lt;well&gt;.\n" in to_vtt(SHORT)


def test_long_segments_become_readable_cues_without_losing_a_word() -> None:
    cues = re.findall(r"-->.*\n((?:.+\n)+)", to_srt(LONG))
    lines = [line for cue in cues for line in cue.splitlines()]
    assert len(cues) > 4 and all(cue.startswith("Speaker 1: ") for cue in cues) and max(map(len, lines)) <= 42
    assert " ".join(line.removeprefix("Speaker 1: ") for line in lines) == LONG.segments[0].text
    ends = re.findall(r"--> (\S+)", to_srt(LONG))
    assert ends == sorted(ends) and ends[-1] == "00:00:30,000"


def test_a_second_line_carries_no_speaker() -> None:
    said = Transcript((Segment(0, 4, "The plan is on the board, and the trees are here.", speaker="Speaker 1"),))
    assert "Speaker 1: The plan is on the board, and\nthe trees are here.\n\n" in to_srt(said)
    assert "<v Speaker 1>The plan is on the board, and\nthe trees are here.\n\n" in to_vtt(said)


def test_an_empty_transcript_is_empty_but_valid() -> None:
    assert to_text(Transcript()) == "" and to_srt(Transcript()) == "" and to_vtt(Transcript()) == "WEBVTT\n\n"
