"""A transcript as text, SRT, WebVTT or JSON-ready values. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from backend.domain.transcript import Segment, Transcript

MAX_CUE_S = 7.0
MAX_CUE_CHARACTERS = 84


def to_text(transcript: Transcript) -> str:
    """One paragraph per speaker turn: `Speaker 1: Hello...`, separated by newlines."""
    return "\n".join(
        f"{speaker}: " + " ".join(segment.text for segment in run)
        for speaker, run in groupby(transcript.segments, key=lambda segment: segment.speaker)
    )


def to_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, `HH:MM:SS,mmm`."""
    return "".join(
        f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{cue.speaker}: {cue.text}\n\n"
        for number, cue in enumerate(_cues(transcript), start=1)
    )


def to_vtt(transcript: Transcript) -> str:
    """WebVTT with a voice span per cue (W3C WebVTT, section 3.5)."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n"
        f"<v {_escape(cue.speaker or '')}>{_escape(cue.text)}\n\n"
        for cue in _cues(transcript)
    )


def _cues(transcript: Transcript) -> Iterator[Segment]:
    """Segments cut to readable length; a cue's time is the share of its characters where words carry no times."""
    for segment in transcript.segments:
        pieces = _wrap(segment.text, segment.end_s - segment.start_s)
        total = sum(len(piece) for piece in pieces) or 1
        start_s = segment.start_s
        for piece in pieces:
            end_s = start_s + (segment.end_s - segment.start_s) * len(piece) / total
            yield Segment(start_s, end_s, piece, speaker=segment.speaker)
            start_s = end_s


def _wrap(text: str, duration_s: float) -> list[str]:
    """Split between words so that a piece has at most MAX_CUE_CHARACTERS and about MAX_CUE_S seconds."""
    limit = MAX_CUE_CHARACTERS
    if duration_s > MAX_CUE_S:
        limit = min(limit, max(20, int(len(text) * MAX_CUE_S / duration_s)))
    pieces: list[str] = []
    for word in text.split():
        if pieces and len(pieces[-1]) + 1 + len(word) <= limit:
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    return pieces


def _clock(seconds: float, decimal: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{decimal}{milliseconds:03d}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
