"""Recordings as programs and accidents make them: late, with gaps, damaged, joined, with several tracks or wrong sizes.

Each is made of the same speech, so that it is known at which time every stretch of it must stand.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Packet: TypeAlias = "av.Packet[Any]"
RATE_HZ = 16_000
GAP_S = 10.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come of a recording.

    Attributes:
        duration_s: what players show.
        moved_s: from a time in the plain speech on, how much later everything stands.
        lost_s: stretches of the plain speech that are damaged.
        may_refuse: whether an error that says why is right, too.
        must_warn: whether a warning with seconds is needed.
    """

    duration_s: float
    moved_s: tuple[tuple[float, float], ...] = ()
    lost_s: tuple[tuple[float, float], ...] = ()
    may_refuse: bool = False
    must_warn: bool = False

    def at(self, second: float) -> float:
        """Where a time in the plain speech stands in the recording."""
        return second + sum(by_s for from_s, by_s in self.moved_s if second >= from_s)


@dataclass(frozen=True, slots=True)
class Odd:
    """A recording to make: its file name, what is odd about it, and how to make it."""

    name: str
    oddity: str
    make: Callable[[Path, Samples], Expected]


@dataclass(frozen=True, slots=True)
class Track:
    """An audio track to write.

    Attributes:
        samples: (channels, n) float32 at 16 kHz.
        starts_s: time stamp of its beginning.
        gap_at_s: where `GAP_S` without packets stand; None: nowhere.
        damaged_s: between which times packets hold noise in place of their data.
        missing_s: between which times packets are not written.
        options: of the encoder.
    """

    samples: Samples
    codec: str = "aac"
    rate_hz: int = 48_000
    starts_s: float = 0.0
    gap_at_s: float | None = None
    damaged_s: tuple[float, float] | None = None
    missing_s: tuple[float, float] | None = None
    language: str = ""
    options: dict[str, str] = field(default_factory=dict)


def write(path: Path, tracks: list[Track], *, picture_s: float = 0.0, options: dict[str, str] | None = None) -> None:
    """Write tracks side by side, with a black picture if one is asked for."""
    with av.open(str(path), "w", options=options or {}) as output:
        picture = output.add_stream("mpeg4" if path.suffix != ".webm" else "libvpx", rate=5) if picture_s else None
        if picture is not None:
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        streams = [_add_stream(output, track) for track in tracks]
        packets = [packet for stream, track in zip(streams, tracks, strict=True) for packet in _packets(stream, track)]
        if picture is not None:
            packets += _pictures(picture, picture_s)
        for packet in sorted(packets, key=lambda one: float((one.dts or 0) * one.time_base)):
            output.mux(packet)


def _add_stream(output: av.container.OutputContainer, track: Track) -> av.AudioStream:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(track.samples)]
    stream = output.add_stream(track.codec, rate=track.rate_hz, layout=layout, options=track.options)
    assert isinstance(stream, av.AudioStream)
    formats = av.Codec(track.codec, "w").audio_formats
    if formats:
        stream.codec_context.format = formats[0]
    stream.codec_context.bit_rate = 12_200 if "amr" in track.codec else 64_000 * len(track.samples)
    if track.language:
        stream.metadata["language"] = track.language
    return stream


def _packets(stream: av.AudioStream, track: Track) -> list[Packet]:
    context = stream.codec_context
    context.open()
    layout = context.layout.name
    resampler = av.AudioResampler(context.format, layout, track.rate_hz, frame_size=context.frame_size or 1024)
    interleaved = np.ascontiguousarray(track.samples.T.reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
    frame.rate, frame.time_base, frame.pts = RATE_HZ, Fraction(1, RATE_HZ), 0
    packets: list[Packet] = []
    n_samples = 0
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        at_s = n_samples / track.rate_hz
        shift_s = track.starts_s + (GAP_S if track.gap_at_s is not None and at_s >= track.gap_at_s else 0.0)
        piece.time_base, piece.pts = Fraction(1, track.rate_hz), n_samples + round(shift_s * track.rate_hz)
        n_samples += piece.samples
        packets += stream.encode(piece)
    packets += stream.encode(None)
    return list(_harmed(packets, track))


def _harmed(packets: list[Packet], track: Track) -> Iterator[Packet]:
    noise = random.Random(1)
    for packet in packets:
        at_s = float((packet.pts or 0) * packet.time_base) - track.starts_s
        if track.missing_s and track.missing_s[0] <= at_s < track.missing_s[1]:
            continue
        if track.damaged_s and track.damaged_s[0] <= at_s < track.damaged_s[1]:
            harmed = av.Packet(b"\xff" * 4 + noise.randbytes(max(4, packet.size - 4)))
            harmed.pts, harmed.dts, harmed.time_base = packet.pts, packet.dts, packet.time_base
            harmed.duration, harmed.stream = packet.duration, packet.stream
            yield harmed
            continue
        yield packet


def _pictures(stream: av.VideoStream, seconds: float) -> list[Packet]:
    packets: list[Packet] = []
    for number in range(round(seconds * 5)):
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 5)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def odd_recordings(pause_s: float) -> list[Odd]:
    """Fifty and more recordings.

    Args:
        pause_s: where nobody speaks in the speech they are made of; gaps and joints go there.
    """
    return [
        *_late(),
        *_with_gaps(pause_s),
        *_damaged(pause_s),
        *_joined(pause_s),
        *_with_tracks(pause_s),
        *_with_polarities(),
        *_padded(),
        *_with_wav_sizes(),
    ]


def _length_s(speech: Samples) -> float:
    return float(speech.shape[1]) / RATE_HZ


def _late() -> Iterator[Odd]:
    def make(path: Path, speech: Samples, codec: str) -> Expected:
        whole_s = 7.0 + _length_s(speech) + 2.0
        write(path, [Track(speech, codec, starts_s=7.0)], picture_s=whole_s)
        return Expected(whole_s, ((0.0, 7.0),))

    for suffix, codec in (("mp4", "aac"), ("mkv", "libopus"), ("ts", "aac"), ("webm", "libopus"), ("mov", "alac")):
        yield Odd(f"late.{suffix}", "sound begins 7 s after the picture", _bound(make, codec))


def _with_gaps(pause_s: float) -> Iterator[Odd]:
    def make(path: Path, speech: Samples, codec: str) -> Expected:
        # A page of Ogg has one time stamp, so that a gap within it moves the whole page.
        options = {"page_duration": "20000"} if path.suffix == ".opus" else {}
        write(path, [Track(speech, codec, gap_at_s=pause_s)], options=options)
        return Expected(_length_s(speech) + GAP_S, ((pause_s, GAP_S),))

    for name, codec in (
        ("gap.webm", "libopus"),
        ("gap.mkv", "aac"),
        ("flac.mkv", "flac"),
        ("mp3.mkv", "libmp3lame"),
        ("gap.mp4", "aac"),
        ("gap.m4a", "alac"),
        ("gap.opus", "libopus"),
        ("gap.ts", "aac"),
        ("gap.flv", "aac"),
        ("gap.wma", "wmav2"),
    ):
        yield Odd(name, "10 s without packets", _bound(make, codec))

    def fragmented(path: Path, speech: Samples) -> Expected:
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "1000000"}
        write(path, [Track(speech, "aac", gap_at_s=pause_s)], options=options)
        return Expected(_length_s(speech) + GAP_S, ((pause_s, GAP_S),))

    yield Odd("fragments.mp4", "10 s without packets", fragmented)

    def telephone(path: Path, speech: Samples) -> Expected:
        write(path, [Track(speech, "libopencore_amrnb", 8_000, options={"dtx": "1"})])
        return Expected(_length_s(speech))

    yield Odd("dtx.amr", "discontinuous transmission", telephone)
    yield Odd("dtx.3gp", "discontinuous transmission", telephone)

    def opus(path: Path, speech: Samples) -> Expected:
        write(path, [Track(speech, "libopus", options={"application": "voip", "dtx": "1"})])
        return Expected(_length_s(speech))

    yield Odd("dtx.opus", "discontinuous transmission", opus)


def _damaged(pause_s: float) -> Iterator[Odd]:
    where_s = (pause_s, pause_s + 2.0)

    def harmed(path: Path, speech: Samples, codec: str) -> Expected:
        write(path, [Track(speech, codec, damaged_s=where_s)])
        return Expected(_length_s(speech), lost_s=(where_s,), must_warn=codec != "libopus")

    for name, codec in (("harmed.m4a", "aac"), ("harmed.mkv", "aac"), ("harmed.webm", "libopus"), ("flac.mka", "flac")):
        yield Odd(name, "2 s of packets hold noise", _bound(harmed, codec))

    def missing(path: Path, speech: Samples, codec: str) -> Expected:
        write(path, [Track(speech, codec, missing_s=where_s)])
        return Expected(_length_s(speech), lost_s=(where_s,), must_warn=True)

    for name, codec in (("missing.webm", "libopus"), ("missing.mp4", "aac"), ("missing.ts", "aac")):
        yield Odd(name, "2 s of packets are missing", _bound(missing, codec))

    def overwritten(path: Path, speech: Samples, codec: str) -> Expected:
        write(path, [Track(speech, codec)])
        data = bytearray(path.read_bytes())
        start, end = (round(len(data) * second / _length_s(speech)) for second in where_s)
        data[start:end] = bytes(end - start)
        path.write_bytes(data)
        around_s = (where_s[0] - 1.5, where_s[1] + 6.0)  # clusters and pages are lost as a whole
        # All behind the damage may be in one cluster, which no reader finds into again.
        return Expected(_length_s(speech), lost_s=(around_s,), must_warn=True, may_refuse=codec == "aac")

    for name, codec in (("zeros.opus", "libopus"), ("zeros.mkv", "aac"), ("zeros.flac", "flac"), ("zeros.flv", "aac")):
        yield Odd(name, "2 s of bytes are zeros", _bound(overwritten, codec))

    def cut(path: Path, speech: Samples, codec: str) -> Expected:
        write(path, [Track(speech, codec)])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return Expected(0.0, may_refuse=True)

    for name, codec in (("cut.mkv", "aac"), ("cut.flac", "flac"), ("cut.wav", "pcm_s16le"), ("cut.webm", "libopus")):
        yield Odd(name, "the second half is missing", _bound(cut, codec))


def _joined(pause_s: float) -> Iterator[Odd]:
    def make(path: Path, speech: Samples, codec: str) -> Expected:
        at = round(pause_s * RATE_HZ)
        first, second = path.with_name(f"1{path.suffix}"), path.with_name(f"2{path.suffix}")
        write(first, [Track(speech[:, :at], codec)])
        other_rate_hz = 24_000 if codec == "libopus" else 32_000
        write(second, [Track(np.tile(speech[:, at:], (2, 1)), codec, other_rate_hz)])
        path.write_bytes(first.read_bytes() + second.read_bytes())
        return Expected(_length_s(speech))

    for name, codec in (
        ("chain.opus", "libopus"),
        ("chain.oga", "flac"),
        ("joined.webm", "libopus"),
        ("joined.mkv", "aac"),
        ("joined.mp4", "aac"),
        ("joined.mp3", "libmp3lame"),
        ("joined.aac", "aac"),
        ("joined.flac", "flac"),
        ("joined.wav", "pcm_s16le"),
        ("joined.ts", "aac"),
    ):
        yield Odd(name, "two files joined, of different rates and channels", _bound(make, codec))


def _with_tracks(pause_s: float) -> Iterator[Odd]:
    def halves(path: Path, speech: Samples) -> Expected:
        at = round(pause_s * RATE_HZ)
        one, other = speech.copy(), speech.copy()
        one[:, at:], other[:, :at] = 0.0, 0.0
        write(path, [Track(one), Track(other)], picture_s=_length_s(speech))
        return Expected(_length_s(speech))

    yield Odd("two.mkv", "one speaker in each track", halves)
    yield Odd("two.mp4", "one speaker in each track", halves)

    def copies(path: Path, speech: Samples) -> Expected:
        write(path, [Track(speech, "ac3"), Track(speech, "aac")])
        return Expected(_length_s(speech))

    yield Odd("copies.mkv", "the same sound in two codecs", copies)

    def silent(path: Path, speech: Samples) -> Expected:
        write(path, [Track(np.zeros_like(speech)), Track(speech)])
        return Expected(_length_s(speech))

    yield Odd("silent.mkv", "the first track is silent", silent)

    def unreadable(path: Path, speech: Samples) -> Expected:
        write(path, [Track(speech, "alac"), Track(speech, "aac")])
        data = path.read_bytes()
        at = data.index(b"alac", data.index(b"stsd"))
        path.write_bytes(data[:at] + b"apac" + data[at + 4 :])
        return Expected(_length_s(speech), must_warn=True)

    yield Odd("spatial.mp4", "the first track cannot be decoded", unreadable)

    def dubbed(path: Path, speech: Samples) -> Expected:
        other = np.roll(speech, RATE_HZ * 5, axis=1)[:, ::-1]
        write(path, [Track(speech, language="eng"), Track(other, language="deu")])
        return Expected(_length_s(speech), must_warn=True)

    yield Odd("dubbed.mkv", "two languages", dubbed)


def _with_polarities() -> Iterator[Odd]:
    def make(path: Path, speech: Samples, codec: str, gains: tuple[float, ...]) -> Expected:
        write(path, [Track(speech * np.array(gains, dtype=np.float32)[:, None], codec)])
        return Expected(_length_s(speech))

    for name, codec, gains in (
        ("inverted.wav", "pcm_s16le", (1.0, -1.0)),
        ("inverted.mp3", "libmp3lame", (1.0, -1.0)),
        ("weaker.opus", "libopus", (0.9, -0.6)),
        ("lfe.flac", "flac", (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)),
        ("quad.wav", "pcm_s16le", (1.0, 1.0, -1.0, 0.0, -1.0, 0.0)),
    ):
        yield Odd(name, f"the channels' gains are {gains}", _bound(make, codec, gains))

    def unnamed(path: Path, speech: Samples) -> Expected:
        _write_wav(path, speech * np.array([0, 0, 0, 1, 0, 0], dtype=np.float32)[:, None])
        return Expected(_length_s(speech))

    yield Odd("six.wav", "the fourth of six unnamed channels speaks", unnamed)


def _padded() -> Iterator[Odd]:
    def make(path: Path, speech: Samples, before_s: float, behind_s: float) -> Expected:
        sides = (round(before_s * RATE_HZ), round(behind_s * RATE_HZ))
        padded = np.pad(speech, ((0, 0), sides))
        write(path, [Track(padded, "flac", RATE_HZ)])
        return Expected(padded.shape[1] / RATE_HZ, ((0.0, before_s),))

    for before_s, behind_s in ((10.0, 0.0), (0.0, 10.0), (8.0, 20.0)):
        name = f"padded-{before_s:.0f}-{behind_s:.0f}.flac"
        yield Odd(name, "zeros before and behind", _bound(make, before_s, behind_s))


def _with_wav_sizes() -> Iterator[Odd]:
    def make(path: Path, speech: Samples, size: Callable[[int], int], tail: bytes, must_warn: bool) -> Expected:
        _write_wav(path, speech)
        data = bytearray(path.read_bytes())
        there = len(data) - 44
        data[4:8], data[40:44] = (struct.pack("<I", min(size(there) + add, 2**32 - 1)) for add in (36, 0))
        path.write_bytes(data + tail)
        return Expected(_length_s(speech), must_warn=must_warn)

    for name, size, tail, must_warn in (
        ("zero.wav", lambda there: 0, b"", False),  # noqa: ARG005
        ("most.wav", lambda there: 2**32 - 1, b"", False),  # noqa: ARG005
        ("round.wav", lambda there: 2_000_000_000, b"", False),  # noqa: ARG005
        ("stale.wav", lambda there: there // 3 // 2 * 2, b"", True),
        ("over.wav", lambda there: there % 65_536, b"", True),
        ("list.wav", lambda there: there, b"LIST\4\0\0\0INFO", False),
    ):
        yield Odd(name, "the header's sizes", _bound(make, size, tail, must_warn))


def _write_wav(path: Path, samples: Samples) -> None:
    """16 bits, with a header that names no channels."""
    channels = len(samples)
    data = (samples.T * 32_767).clip(-32_768, 32_767).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, channels, RATE_HZ, RATE_HZ * 2 * channels, 2 * channels, 16)
    head = b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", len(data))
    path.write_bytes(b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data)


def _bound(make: Callable[..., Expected], *more: object) -> Callable[[Path, Samples], Expected]:
    return lambda path, speech: make(path, speech, *more)
