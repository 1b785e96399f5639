"""What a recording says of itself. Reads its first bytes and packets; decodes no more than that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.engines.audio.process import run_decoder

MAX_CHANNELS = 8
MAX_PROBE_CPU_S = 10.0


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the container says. `duration_s` is a claim of the header (None if it makes none), never a limit."""

    format: str
    codec: str
    sample_rate_hz: int
    channels: int
    duration_s: float | None


def probe(path: Path) -> MediaInfo:
    """Whether a file is a recording that can be decoded: its first bytes, its container, and one packet of sound.

    Takes a tenth of a second whatever the length; a good beginning does not promise a good end.

    Args:
        path: a local file; the name means nothing, the bytes decide.

    Raises:
        EmptyAudio: no bytes, or no sound in them.
        UnsupportedMedia: it is no audio or video, or has no audio stream, or a codec that is not built in.
        InvalidAudio: the container is damaged, or not one packet can be decoded.
    """
    return MediaInfo(**run_decoder({"path": str(path)}, max_cpu_s=MAX_PROBE_CPU_S)["info"])
