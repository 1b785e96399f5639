"""What a recording's first bytes say it is: the allow-list of containers, and which demuxers may open each.

The marks are those that FFmpeg's own demuxers look for (the `*_probe` functions in its libavformat). Playlists and
other texts that name files (ffconcat, HLS, DASH, SDP …) are left out on purpose: they could make FFmpeg open a
neighbour's file. Of general detectors puremagic 1.30 was tried: it knows neither MPEG audio without tags nor transport
streams.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HEAD_BYTES = 4096

_MARKS = {
    "wav": rb"(?:RIFF|RIFX|RF64|BW64)....WAVE",
    "avi": rb"RIFF....AVI[ X]",
    "w64": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",
    "aiff": rb"FORM....AIF[FC]",
    "caf": rb"caff\x00",
    "au": rb"\.snd",
    "voc": rb"Creative Voice File\x1a",
    "flac": rb"fLaC",
    "ogg": rb"OggS\x00",
    "matroska": rb"\x1a\x45\xdf\xa3",
    "mov": rb"....(?:ftyp|mdat)|\x00...(?:moov|free|skip|wide|pnot)",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "flv": rb"FLV\x01",
    "rm": rb"\.RMF|\.ra\xfd",
    "amr": rb"#!AMR(?:-WB)?\n",
    "ape": rb"MAC .[\x0e\x0f]",
    "mpc": rb"MP\+[\x07\x17]",
    "mpc8": rb"MPCK",
    "wv": rb"wvpk",
    "tta": rb"TTA1",
    "tak": rb"tBaK",
    "dsf": rb"DSD \x1c\x00",
    "oma": rb"ea3\x03|EA3\x01",
    "dts": rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80|\x1f\xff\xe8\x00|\xff\x1f\x00\xe8",
    "ac3,eac3": rb"\x0b\x77|\x77\x0b",
    "mpeg": rb"\x00\x00\x01\xba",
    "mp3,aac,flac,wv,tta,ape,ac3,eac3,aiff": rb"ID3[\x02-\x04]",  # a tag, which any of these may follow
}
_PATTERNS = [(demuxers, re.compile(mark, re.DOTALL)) for demuxers, mark in _MARKS.items()]

_TS_PACKETS = (188, 192, 204)
_MPEG_RATES_HZ = (44_100, 48_000, 32_000)
_MPEG_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by MPEG version (2 also for 2.5) and layer: ISO/IEC 11172-3 and 13818-3."""


def allowed_demuxers(head: bytes) -> str | None:
    """The FFmpeg demuxers, separated by commas, that may open what begins like this; None: no recording.

    Args:
        head: the first `HEAD_BYTES` bytes, or the whole of a shorter file.
    """
    for demuxers, pattern in _PATTERNS:
        if pattern.match(head):
            return demuxers
    if _is_transport_stream(head):
        return "mpegts"
    if _frames_follow(head, 0, _adts_frame):
        return "aac"
    # Encoders and radio recorders leave zeros or half a frame in front.
    starts = (match.start() for match in re.finditer(rb"\xff[\xe2-\xff]", head))
    return "mp3" if any(_frames_follow(head, start, _mpeg_frame) for start in starts) else None


def _is_transport_stream(head: bytes) -> bool:
    return any(
        len(head) > 4 * size and any(set(head[first::size]) == {0x47} for first in range(size)) for size in _TS_PACKETS
    )


def _frames_follow(head: bytes, start: int, frame: Callable[[bytes], tuple[int, object] | None]) -> bool:
    """Whether a frame begins at `start` and one like it where it ends; a whole file may be a single frame."""
    first = frame(head[start:])
    if first is None:
        return False
    length, kind = first
    if start + length + 4 > len(head):
        return start == 0 and len(head) < HEAD_BYTES
    following = frame(head[start + length :])
    return following is not None and following[1] == kind


def _adts_frame(head: bytes) -> tuple[int, object] | None:
    """Length, and what stays the same in every frame, of the ADTS frame that begins here (ISO/IEC 14496-3, 1.A.2.2)."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 0xF > 12:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return (length, (head[1], head[2])) if length > 7 else None


def _mpeg_frame(head: bytes) -> tuple[int, object] | None:
    """The same for MPEG audio, layers 1 to 3 (ISO/IEC 11172-3, 2.4.1.3); version 2.5 is Fraunhofer's."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate, kbps = head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer == 4 or rate == 3 or kbps in (0, 15):
        return None
    rate_hz = _MPEG_RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * _MPEG_KBPS[1 if version == 3 else 2, layer][kbps - 1]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate_hz + padding) * 4, (version, layer, rate)
    return (72 if layer == 3 and version != 3 else 144) * bits // rate_hz + padding, (version, layer, rate)
