"""Files made to harm: the decoder opens nothing else, stays within its limits, and harms nothing but itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from backend.engines.audio.allowance import Allowance
from backend.engines.audio.decoding.signatures import HEAD_BYTES, allowed_demuxers
from backend.engines.audio.memory import MIN_DECODER_BYTES
from backend.engines.audio.probe import probe
from backend.engines.audio.process import run_decoder
from backend.engines.audio.samples import SAMPLE_RATE_HZ, decode_tracks
from backend.errors import (
    AppError,
    EmptyAudio,
    EngineUnavailable,
    InvalidAudio,
    StorageFull,
    TooLarge,
    UnsupportedMedia,
)
from tests.conftest import ROOT, SAMPLE
from tests.support.hostile_media import (
    PLAYLISTS,
    flac_silence,
    flac_with_comments,
    mp4_of_many_samples,
    quicktime_with_foreign_samples,
    wav_and_page,
    wav_and_zip,
    zip_and_wav,
)
from tests.support.media import decode, tone, wav_bytes, write


class Cancelled(Exception):
    """What a caller's progress callback raises to stop the work."""


@pytest.fixture
def listener():
    """A listening socket that must stay unvisited."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return write(tmp_path / "secret.mp3", tone(1.0, 44_100), rate_hz=44_100, codec="libmp3lame")


def filled(playlist: str, secret: Path, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return PLAYLISTS[playlist].format(name=secret.name, path=secret, url=f"http://127.0.0.1:{port}", port=port)


# What may be opened


@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_a_text_that_names_files_is_refused_and_not_followed(
    tmp_path: Path, secret: Path, listener: socket.socket, playlist: str
) -> None:
    (tmp_path / "list.m3u8").write_text(filled(playlist, secret, listener))
    with pytest.raises(UnsupportedMedia):
        probe(tmp_path / "list.m3u8")
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to see what is opened")
@pytest.mark.parametrize("hostile", ["film", *PLAYLISTS])
def test_the_decoder_opens_the_recording_and_no_other(
    tmp_path: Path, secret: Path, listener: socket.socket, hostile: str
) -> None:
    recording, calls = tmp_path / "upload.part", tmp_path / "calls"
    film = hostile == "film"
    recording.write_bytes(
        quicktime_with_foreign_samples(secret) if film else filled(hostile, secret, listener).encode()
    )
    program = (
        f"from pathlib import Path; from backend.engines.audio.probe import probe; probe(Path({str(recording)!r}))"
    )
    watched = ["strace", "-f", "-qq", "-e", "trace=openat,open,connect", "-o", str(calls), sys.executable, "-c"]
    traced = subprocess.run([*watched, program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    if "ptrace" in traced.stderr.lower():
        pytest.skip("strace may not be used here")
    opened = calls.read_text()
    assert str(recording) in opened, traced.stderr
    assert secret.name not in opened and "AF_INET" not in opened


@pytest.mark.parametrize(
    "body",
    [
        *(b"just text\n" * 40, b"%PDF-1.7\n" + bytes(999), b"MZ" * 400, b"\x7fELF" + bytes(999), b"GIF89a" + bytes(99)),
        *(b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(999), b"<html>", b"#!/bin/sh\n", b"\xff" * 5000, bytes(5000), b"R"),
        zip_and_wav(wav_bytes(bytes(32_000))),
        b"<html>" + wav_bytes(bytes(32_000)),
    ],
)
def test_what_does_not_begin_like_a_recording_is_unsupported(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(body)
    with pytest.raises(UnsupportedMedia, match="Send wav"):
        probe(tmp_path / "a.wav")


@pytest.mark.parametrize("lead", [b"", bytes(1000), b"\xff\xe0\x00junk"])
def test_mpeg_audio_without_tags_is_recognised_behind_what_stands_before_it(tmp_path: Path, lead: bytes) -> None:
    options = {"write_xing": "0", "id3v2_version": "0"}
    path = write(tmp_path / "a.mp3", tone(2.0, 22_050), rate_hz=22_050, codec="libmp3lame", options=options)
    assert allowed_demuxers((lead + path.read_bytes())[:HEAD_BYTES]) == "mp3"


def test_a_container_that_is_not_what_it_begins_like_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"OggS\0" + wav_bytes(bytes(32_000)))
    with pytest.raises(UnsupportedMedia):
        probe(tmp_path / "a.wav")


@pytest.mark.parametrize("join", [wav_and_page, wav_and_zip])
def test_a_recording_that_is_something_else_too_is_only_a_recording(tmp_path: Path, join) -> None:
    (tmp_path / "a.html").write_bytes(join(write(tmp_path / "a.wav", tone(1.0)).read_bytes()))
    assert probe(tmp_path / "a.html").format == "wav"
    with decode(tmp_path / "a.html", max_s=60) as audio:
        assert audio.duration_s == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("channels", "rate_hz"), [(9, 16_000), (200, 16_000), (1, 1_000), (1, 2_000_000)])
def test_channels_and_rates_that_no_recorder_has_are_refused(tmp_path: Path, channels: int, rate_hz: int) -> None:
    wav = bytearray(wav_bytes(bytes(64_000), rate_hz=rate_hz))
    wav[22:24], wav[32:34] = channels.to_bytes(2, "little"), (2 * channels).to_bytes(2, "little")
    (tmp_path / "a.wav").write_bytes(wav)
    with pytest.raises(UnsupportedMedia):
        probe(tmp_path / "a.wav")


# Bombs and lies


def test_a_day_of_silence_in_150_kb_stops_at_the_limit(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.flac"
    bomb.write_bytes(flac_silence(86_400))
    assert bomb.stat().st_size < 160_000
    began = time.monotonic()
    with pytest.raises(TooLarge, match="MAX_AUDIO_SECONDS"):
        decode(bomb, max_s=1800)
    assert time.monotonic() - began < 10


def test_decoding_that_takes_too_much_computing_is_given_up(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.flac"
    bomb.write_bytes(flac_silence(3600, rate_hz=192_000, channels=8))
    spool = tmp_path / "spool"
    spool.mkdir()
    with pytest.raises(TooLarge, match="MAX_DECODE_SECONDS"):
        decode(bomb, max_s=43_200, max_decode_s=0.5, spool_dir=spool)
    assert list(spool.iterdir()) == []


def test_a_table_of_many_samples_takes_no_memory_from_us(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(mp4_of_many_samples(50_000_000))
    before = psutil.Process().memory_info().rss
    with pytest.raises((InvalidAudio, EmptyAudio)):
        probe(tmp_path / "a.mp4")
    assert psutil.Process().memory_info().rss - before < 20_000_000


def test_comments_that_take_minutes_to_compare_are_given_up(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(flac_with_comments(400_000))
    with pytest.raises(TooLarge, match="too much beside it, such as comments"):
        probe(tmp_path / "a.flac")


def test_a_recording_with_a_thousand_comments_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(flac_with_comments(1000))
    assert probe(tmp_path / "a.flac").duration_s == pytest.approx(2.0)


@pytest.mark.parametrize(("claimed_s", "decoded_s"), [(1, 65.535), (0, 65.535)])
def test_a_header_that_claims_too_little_is_not_believed(tmp_path: Path, claimed_s: int, decoded_s: float) -> None:
    (tmp_path / "a.flac").write_bytes(flac_silence(65.535, claimed_samples=claimed_s * 8_000))
    with decode(tmp_path / "a.flac", max_s=600) as audio:
        assert audio.duration_s == pytest.approx(decoded_s)


def test_a_header_that_claims_months_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(flac_silence(65.535, claimed_samples=99 * 86_400 * 8_000))
    assert probe(tmp_path / "a.flac").duration_s == 99 * 86_400
    with pytest.raises(InvalidAudio, match="truncated"):
        decode(tmp_path / "a.flac", max_s=600)


def test_samples_that_take_too_much_space_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.flac"
    bomb.write_bytes(flac_silence(12 * 3600, channels=8))
    began = time.monotonic()
    with pytest.raises(TooLarge, match="MAX_DECODED_BYTES"):
        decode_tracks(bomb, separate=True, max_s=43_200, allowance=Allowance(max_decoded_bytes=10**9))
    assert time.monotonic() - began < 5


def test_samples_that_take_too_much_space_are_refused_although_the_header_claims_few(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.flac"
    bomb.write_bytes(flac_silence(3600, channels=8, claimed_samples=8_000))
    with pytest.raises(TooLarge, match="MAX_DECODED_BYTES"):
        decode_tracks(bomb, separate=True, max_s=43_200, allowance=Allowance(max_decoded_bytes=10**8))


@pytest.mark.parametrize("claimed_samples", [None, 8_000])
def test_samples_leave_the_disk_its_reserve(tmp_path: Path, claimed_samples: int | None) -> None:
    bomb = tmp_path / "bomb.flac"
    bomb.write_bytes(flac_silence(3600, channels=8, claimed_samples=claimed_samples))
    reserve_bytes = shutil.disk_usage(tmp_path).free - 300_000_000
    lowest_bytes = reserve_bytes + 300_000_000

    def look(_fraction: float) -> None:
        nonlocal lowest_bytes
        lowest_bytes = min(lowest_bytes, shutil.disk_usage(tmp_path).free)

    allowance = Allowance(disk_reserve_bytes=reserve_bytes)
    with pytest.raises(StorageFull, match="DISK_HARD_LIMIT_BYTES"):
        decode_tracks(bomb, separate=True, max_s=43_200, spool_dir=tmp_path, allowance=allowance, progress=look)
    assert lowest_bytes > reserve_bytes - 100_000_000  # others write, too


def test_a_small_file_gets_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(mp4_of_many_samples(24_000_000))
    others, most_bytes = children(), 0

    def look(_fraction: float) -> None:
        nonlocal most_bytes
        most_bytes = max(most_bytes, *(decoder.memory_info().rss for decoder in children() - others))

    with pytest.raises(InvalidAudio):
        decode(tmp_path / "a.mp4", max_s=60, progress=look)
    assert 0 < most_bytes < MIN_DECODER_BYTES


def test_nothing_but_a_container_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(b""))
    with pytest.raises(EmptyAudio, match="no audio samples"):
        probe(tmp_path / "a.wav")


def test_a_beginning_that_cannot_be_decoded_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(mp4_of_many_samples(5))
    with pytest.raises(InvalidAudio, match="damaged"):
        probe(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a b.flac", "-i.flac", "http:x.flac", "concat:a|b.flac", "%03d.flac", "ä\n.flac"])
def test_the_name_of_a_file_means_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(flac_silence(65.535))
    assert probe(tmp_path / name).duration_s == pytest.approx(65.535)


# The decoder's process


def children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def test_what_progress_raises_ends_the_decoder_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(flac_silence(3600, rate_hz=192_000, channels=8))
    others, calls = children(), 0

    def stop_soon(_fraction: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Cancelled

    began = time.monotonic()
    with pytest.raises(Cancelled):
        decode(tmp_path / "a.flac", max_s=43_200, progress=stop_soon)
    assert time.monotonic() - began < 5
    assert children() - others == set()
    with decode(SAMPLE, max_s=60) as audio:
        assert audio.n_samples > 30 * SAMPLE_RATE_HZ


def test_progress_of_decoding_rises(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(flac_silence(4 * 3600))
    seen: list[float] = []
    with decode(tmp_path / "a.flac", max_s=43_200, progress=seen.append):
        assert seen == sorted(seen) and 0 <= seen[0] < seen[-1] < 1


def test_the_decoder_ends_when_who_asked_for_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(flac_silence(3600, rate_hz=192_000, channels=8, claimed_samples=0))
    program = (
        f"from pathlib import Path; from tests.support.media import decode; decode(Path({str(path)!r}), max_s=1e6)"
    )
    asker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    end = time.monotonic() + 30
    while not (decoders := psutil.Process(asker.pid).children()) and time.monotonic() < end:
        time.sleep(0.05)
    asker.kill()
    asker.wait()
    gone, _ = psutil.wait_procs(decoders, timeout=10)
    assert len(gone) == 1


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (signal.SIGSEGV, InvalidAudio, "crash"),
        (signal.SIGXCPU, TooLarge, "MAX_DECODE_SECONDS"),
        (signal.SIGKILL, EngineUnavailable, "SIGKILL"),
    ],
)
def test_a_decoder_that_dies_is_an_error_of_one_recording(
    tmp_path: Path, number: signal.Signals, error: type[AppError], says: str
) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(flac_silence(3600, rate_hz=192_000, channels=8))

    def strike(_fraction: float) -> None:
        for decoder in psutil.Process().children():
            os.kill(decoder.pid, number)

    with pytest.raises(error, match=says):
        decode(path, max_s=43_200, progress=strike)


def test_a_mistake_of_the_program_is_not_blamed_on_the_recording() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'path'"):
        run_decoder({}, max_cpu_s=5)
