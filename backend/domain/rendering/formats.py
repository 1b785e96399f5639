"""A transcript as text, SRT, WebVTT or JSON-ready values. Pure functions."""

from __future__ import annotations

from itertools import groupby

from backend.domain.rendering.subtitles import Cue, cues
from backend.domain.transcript import Transcript


def to_text(transcript: Transcript) -> str:
    """One paragraph per speaker turn: `Speaker 1: Hello...`, separated by newlines."""
    return "\n".join(
        f"{speaker}: " + " ".join(segment.text for segment in run)
        for speaker, run in groupby(transcript.segments, key=lambda segment: segment.speaker)
    )


def to_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, `HH:MM:SS,mmm`."""
    return "".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_labelled(cue)}\n\n"
        for number, cue in enumerate(cues(transcript), start=1)
    )


def to_vtt(transcript: Transcript) -> str:
    """WebVTT with a voice span per cue (W3C WebVTT, section 3.5)."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n"
        f"<v {_escape(cue.speaker)}>{_escape(_unlabelled(cue))}\n\n"
        for cue in cues(transcript)
    )


def _labelled(cue: Cue) -> str:
    first, *others = cue.lines
    return "\n".join([f"{cue.label} {first}".rstrip(), *others])


def _unlabelled(cue: Cue) -> str:
    return "\n".join(line for line in cue.lines if line)


def _clock(milliseconds: int, decimal: str) -> str:
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{decimal}{milliseconds:03d}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
