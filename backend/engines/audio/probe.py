"""What a recording says of itself. Reads its first bytes and packets; decodes no more than that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.engines.audio.allowance import Allowance
from backend.engines.audio.process import NONSENSE, run_decoder
from backend.errors import InvalidAudio

MAX_CHANNELS = 8
MAX_NAME_LENGTH = 200
MAX_PROBE_CPU_S = 2.0
"""For what a healthy file needs some hundredths of. FFmpeg compares each tag with all before it: 400,000 different
comments would take minutes."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the container says. `duration_s` is a claim of the header (None if it makes none), never a limit."""

    format: str
    codec: str
    sample_rate_hz: int
    channels: int
    duration_s: float | None


def probe(path: Path, allowance: Allowance | None = None, stream: int | None = None) -> MediaInfo:
    """Whether a file is a recording that can be decoded: its first bytes, its container, and one packet of sound.

    Takes as long for an hour as for a day; a good beginning does not promise a good end.

    Args:
        path: a local file; the name means nothing, the bytes decide.
        allowance: what the decoder may use; default: confined as far as the machine can.
        stream: the only audio stream that is of interest, counted from 0.

    Raises:
        EmptyAudio: no bytes, or no sound in them.
        UnsupportedMedia: it is no audio or video, or has no audio stream, or a codec that is not built in.
        TooLarge: what it holds beside the sound takes too long to read.
        InvalidAudio: the container is damaged, or not one packet can be decoded.
        EngineUnavailable: the decoder was killed from outside, or cannot be confined as required.
    """
    with (allowance or Allowance()).granted(path) as limits:
        return read_info(run_decoder({"path": str(path), "stream": stream, **limits}, max_cpu_s=MAX_PROBE_CPU_S))


def read_info(result: Mapping[str, Any]) -> MediaInfo:
    """What a decoder's result says of the recording. A file may have taken the decoder over, so it is not believed.

    Raises:
        InvalidAudio: it makes no sense.
    """
    try:
        said = result["info"]
        claim = None if said["duration_s"] is None else float(said["duration_s"])
        info = MediaInfo(said["format"], said["codec"], int(said["sample_rate_hz"]), int(said["channels"]), claim)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise InvalidAudio(NONSENSE) from error
    names_are_short = all(isinstance(name, str) and len(name) <= MAX_NAME_LENGTH for name in (info.format, info.codec))
    if not names_are_short or not 1 <= info.channels <= MAX_CHANNELS or not math.isfinite(claim or 0.0):
        raise InvalidAudio(NONSENSE)
    return info
