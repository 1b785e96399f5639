"""What sizes in WAV headers are worth."""

from __future__ import annotations

import struct
from contextlib import closing
from pathlib import Path

import pytest

from backend.domain.losses import LossKind
from backend.engines.audio.decoding.recording import OpenRecording
from backend.engines.audio.decoding.wav import Wav, read_wav
from backend.errors import InvalidAudio

BYTES_PER_S = 32_000
SOUND = b"\1\2" * BYTES_PER_S  # two seconds


def wav(size: int, sound: bytes = SOUND, *, magic: bytes = b"RIFF") -> bytes:
    order = ">" if magic == b"RIFX" else "<"
    form = struct.pack(f"{order}HHIIHH", 1, 1, 16_000, BYTES_PER_S, 2, 16)
    head = b"WAVEfmt " + struct.pack(f"{order}I", 16) + form + b"data" + struct.pack(f"{order}I", size)
    return magic + struct.pack(f"{order}I", min(size + 36, 2**32 - 1)) + head + sound


def rf64(size: int, sound: bytes = SOUND) -> bytes:
    sizes = b"ds64" + struct.pack("<IQQQI", 28, size + 72, size, size // 2, 0)
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, BYTES_PER_S, 2, 16)
    return b"RF64\xff\xff\xff\xffWAVE" + sizes + form + b"data\xff\xff\xff\xff" + sound


def read(folder: Path, data: bytes, start: int = 0) -> Wav:
    (folder / "a.wav").write_bytes(data)
    with closing(OpenRecording(folder / "a.wav")) as recording:
        return read_wav(recording, start)


@pytest.mark.parametrize("data", [wav(len(SOUND)), wav(len(SOUND), magic=b"RIFX"), rf64(len(SOUND)), wav(0)])
def test_a_right_header_stays_as_it_is(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) == Wav(len(data))


@pytest.mark.parametrize(
    "size",
    [0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFFF - 36, 2_000_000_000, 1_000_000_000 - 44, 1 << 28, 1 << 30],
)
def test_placeholders_are_no_promise(tmp_path: Path, size: int) -> None:
    data = wav(size)
    assert read(tmp_path, data).losses == () and read(tmp_path, data).end == len(data)


@pytest.mark.parametrize("data", [wav(2 * len(SOUND)), wav(3 * len(SOUND), magic=b"RIFX"), rf64(9 * len(SOUND))])
def test_a_plausible_promise_that_is_not_kept_is_a_truncated_file(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidAudio, match=r"truncated.*\(2\.0 s\) are there.*ffmpeg -i"):
        read(tmp_path, data)


def test_a_promise_of_half_a_day_more_is_told_and_not_believed(tmp_path: Path) -> None:
    [loss] = read(tmp_path, wav(1_912_345_678)).losses
    assert (loss.kind, round(loss.at_s), loss.seconds) == (LossKind.HEADER, 59_761, 2.0)


@pytest.mark.parametrize("data", [wav(16_000), wav(16_000, magic=b"RIFX"), rf64(16_000), wav(15_999)])
def test_sound_behind_an_outdated_header_is_read_and_told(tmp_path: Path, data: bytes) -> None:
    found = read(tmp_path, data)
    [loss] = found.losses
    assert (loss.at_s, loss.seconds) == (pytest.approx(0.5, abs=0.001), 2.0)
    assert len(SOUND).to_bytes(4, "big" if data[:4] == b"RIFX" else "little") in found.head


@pytest.mark.parametrize(
    "tail",
    [b"LIST\4\0\0\0INFO", b"LIST\4\0\0\0INFOid3 \2\0\0\0ab", bytes(100_000), b"PK\3\4" + b"\7" * 1000],
    ids=["chunk", "chunks", "zeros", "a few bytes"],
)
def test_what_is_no_sound_behind_the_sound_is_none(tmp_path: Path, tail: bytes) -> None:
    assert read(tmp_path, wav(len(SOUND)) + tail).losses == ()


def test_a_second_recording_begins_behind_the_first(tmp_path: Path) -> None:
    first = wav(len(SOUND))
    assert read(tmp_path, first + wav(len(SOUND))).end == len(first)
    assert read(tmp_path, first + wav(len(SOUND)), len(first)).end == 2 * len(first)


def test_a_header_without_sound_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, wav(0)[:36]) == Wav(36)
