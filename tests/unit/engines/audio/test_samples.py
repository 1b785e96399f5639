"""Decoding: any container to mono 16 kHz samples, mixed or one track per channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.engines.audio.allowance import Allowance
from backend.engines.audio.samples import SAMPLE_RATE_HZ, decode_tracks, probe
from backend.errors import EmptyAudio, InvalidAudio, TooLarge, UnsupportedMedia
from tests.support.media import decode, silence, tone, wav_bytes, write

CONTAINERS = [
    ("a.wav", "pcm_s16le", 16_000),
    ("a.wav", "pcm_f32le", 44_100),
    ("a.flac", "flac", 48_000),
    ("a.mp3", "libmp3lame", 44_100),
    ("a.m4a", "aac", 44_100),
    ("a.mp4", "aac", 48_000),
    ("a.mov", "pcm_s16le", 16_000),
    ("a.mkv", "aac", 48_000),
    ("a.webm", "libopus", 48_000),
    ("a.opus", "libopus", 48_000),
    ("a.ogg", "flac", 44_100),
    ("a.wma", "wmav2", 44_100),
    ("a.aiff", "pcm_s16be", 22_050),
    ("a.aac", "aac", 44_100),
    ("a.au", "pcm_mulaw", 8_000),
    ("a.caf", "pcm_s16be", 16_000),
]


@pytest.mark.parametrize(("name", "codec", "rate_hz"), CONTAINERS)
def test_common_containers_become_mono_16_khz(tmp_path: Path, name: str, codec: str, rate_hz: int) -> None:
    path = write(tmp_path / name, tone(2.0, rate_hz), rate_hz=rate_hz, codec=codec)
    with decode(path, max_s=60) as audio:
        samples = audio.read()
        assert samples.dtype == np.float32 and samples.shape == (audio.n_samples,)
        assert audio.duration_s == pytest.approx(2.0, abs=0.15)
        spectrum = np.abs(np.fft.rfft(samples))
        assert np.argmax(spectrum) * SAMPLE_RATE_HZ / len(samples) == pytest.approx(440, abs=5)
        assert np.sqrt(np.mean(samples[8000:-8000] ** 2)) == pytest.approx(0.354, abs=0.04)


def test_amr_from_a_phone_is_decoded(tmp_path: Path) -> None:
    frame = bytes([0x3C]) + bytes(31)  # mode 7, 12.2 kbit/s, 20 ms
    (tmp_path / "a.amr").write_bytes(b"#!AMR\n" + frame * 100)
    with decode(tmp_path / "a.amr", max_s=60) as audio:
        assert audio.duration_s == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("channels", [2, 6, 8])
def test_many_channels_are_mixed_without_clipping(tmp_path: Path, channels: int) -> None:
    path = write(tmp_path / "many.wav", tone(1.0, 16_000, channels))
    with decode(path, max_s=60) as audio:
        assert 0.3 < np.abs(audio.read()).max() <= 1.0


def test_the_sound_of_a_video_is_decoded_and_its_pictures_are_not(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    _write_video(path)
    with decode(path, max_s=60) as audio:
        assert audio.duration_s == pytest.approx(1.0, abs=0.1)


def test_windows_read_the_same_samples_as_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(3.0))
    with decode(path, max_s=60) as audio:
        whole = audio.read()
        assert np.array_equal(np.concatenate([audio.read(0, 20_000), audio.read(20_000)]), whole)
        assert np.array_equal(audio.seconds(1.0, 2.0), whole[16_000:32_000])
        assert len(audio.read(40_000, 10**9)) == 8_000 and len(audio.read(10**9)) == 0


def test_samples_of_16_bits_are_kept_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(-32_768, 32_767, 40_000, dtype=np.int16)
    (tmp_path / "a.wav").write_bytes(wav_bytes(values.tobytes()))
    with decode(tmp_path / "a.wav", max_s=60, allowance=Allowance(max_decoded_bytes=2 * 40_000)) as audio:
        assert np.array_equal(audio.read(), values.astype(np.float32) / 32_768)
        assert np.array_equal(audio.read(100, 200), audio.read()[100:200])


def test_no_file_is_left_while_or_after_decoding(tmp_path: Path) -> None:
    source = write(tmp_path / "a.wav", tone(1.0))
    spool = tmp_path / "spool"
    spool.mkdir()
    with decode(source, max_s=60, spool_dir=spool) as audio:
        assert audio.n_samples and list(spool.iterdir()) == []


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(EmptyAudio, match="0 bytes"):
        decode(tmp_path / "a.wav", max_s=60)


def test_a_recording_without_samples_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(b""))
    with pytest.raises(EmptyAudio, match="no audio samples"):
        decode(tmp_path / "a.wav", max_s=60)


@pytest.mark.parametrize("body", [b"just text\n", b"%PDF-1.7\n", b"PK\x03\x04" + bytes(100), bytes(5000), b"MZ" * 40])
def test_what_is_no_recording_is_unsupported(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(body)
    with pytest.raises((UnsupportedMedia, InvalidAudio)):
        decode(tmp_path / "a.wav", max_s=60)


def test_a_picture_has_no_audio_stream(tmp_path: Path) -> None:
    _write_video(tmp_path / "silent.mkv", sound=False)
    with pytest.raises(UnsupportedMedia, match="no audio stream"):
        probe(tmp_path / "silent.mkv")


@pytest.mark.parametrize("playlist", ["ffconcat version 1.0\nfile secret.wav\n", "#EXTM3U\n#EXTINF:1.0,\n{secret}\n"])
@pytest.mark.parametrize("name", ["list.wav", "list.m3u8", "list.ffconcat"])
def test_a_playlist_cannot_read_a_neighbours_file(tmp_path: Path, playlist: str, name: str) -> None:
    secret = write(tmp_path / "secret.wav", tone(1.0))
    (tmp_path / name).write_text(playlist.format(secret=secret))
    with pytest.raises((UnsupportedMedia, InvalidAudio)):
        decode(tmp_path / name, max_s=60)


def test_decoding_stops_at_the_limit_whatever_the_header_says(tmp_path: Path) -> None:
    bomb = write(tmp_path / "bomb.flac", silence(1800, 8_000), rate_hz=8_000, codec="flac")
    assert bomb.stat().st_size < 400_000
    spool = tmp_path / "spool"
    spool.mkdir()
    with pytest.raises(TooLarge, match="60 s"):
        decode(bomb, max_s=60, spool_dir=spool)
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(("name", "codec"), [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.m4a", "aac")])
def test_a_truncated_file_is_refused_with_what_is_missing(tmp_path: Path, name: str, codec: str) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (1, 160_000)).astype(np.float32)
    whole = write(tmp_path / name, noise, codec=codec, options={"movflags": "faststart"} if codec == "aac" else None)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InvalidAudio, match="truncated"):
        decode(whole, max_s=60)


def test_a_streamed_wav_of_unknown_size_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(2.0))
    body = bytearray(path.read_bytes())
    body[4:8] = b"\xff\xff\xff\xff"
    position = body.index(b"data") + 4
    body[position : position + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(body)
    with decode(path, max_s=60) as audio:
        assert audio.duration_s == pytest.approx(2.0, abs=0.01)


def test_damaged_packets_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp3", tone(10.0, 44_100), rate_hz=44_100, codec="libmp3lame")
    body = bytearray(path.read_bytes())
    middle = len(body) // 2
    body[middle : middle + 600] = bytes(range(256)) * 2 + bytes(88)
    path.write_bytes(body)
    with decode(path, max_s=60) as audio:
        assert audio.duration_s > 9.0


def test_samples_that_are_not_numbers_become_silence(tmp_path: Path) -> None:
    samples = np.array([0.5, np.nan, np.inf, -np.inf, 7.0, -7.0] * 4000, dtype="<f4")
    (tmp_path / "a.wav").write_bytes(wav_bytes(samples.tobytes(), kind=3, bits=32))
    with decode(tmp_path / "a.wav", max_s=60) as audio:
        decoded = audio.read()
    assert np.isfinite(decoded).all() and np.abs(decoded).max() <= 1.0


def _write_video(path: Path, *, sound: bool = True) -> None:
    import av

    with av.open(str(path), "w") as output:
        video = output.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        audio = output.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")
            output.mux(video.encode(frame.reformat(format="yuv420p")))
        output.mux(video.encode(None))
        if audio:
            sample = av.AudioFrame.from_ndarray(tone(1.0), format="fltp", layout="mono")
            sample.rate = 16_000
            resampler = av.AudioResampler(audio.format, "mono", 16_000, frame_size=1024)
            for piece in [*resampler.resample(sample), *resampler.resample(None), None]:
                output.mux(audio.encode(piece))


def test_every_channel_becomes_a_track_of_its_own(tmp_path: Path) -> None:
    stereo = np.concatenate([tone(2.0, frequency_hz=300), tone(2.0, frequency_hz=700)])
    left, right = decode_tracks(write(tmp_path / "call.wav", stereo), separate=True, max_s=60)
    with left, right:
        peaks = [np.argmax(np.abs(np.fft.rfft(track.read()))) / 2.0 for track in (left, right)]
    assert peaks == pytest.approx([300, 700], abs=2)


@pytest.mark.parametrize("channels", [6, 8])
def test_many_channels_are_told_apart(tmp_path: Path, channels: int) -> None:
    sound = np.concatenate([tone(1.0, frequency_hz=200 + 150 * number) for number in range(channels)])
    tracks = decode_tracks(write(tmp_path / "many.flac", sound, codec="flac"), separate=True, max_s=60)
    peaks = [round(float(np.argmax(np.abs(np.fft.rfft(track.read()))))) for track in tracks]
    for track in tracks:
        track.close()
    assert sorted(peaks) == [200 + 150 * number for number in range(channels)]


def test_channels_that_say_the_same_count_as_one(tmp_path: Path) -> None:
    path = write(tmp_path / "mono.mp3", tone(2.0, 44_100, 2), rate_hz=44_100, codec="libmp3lame")
    tracks = decode_tracks(path, separate=True, max_s=60)
    assert len(tracks) == 1
    tracks[0].close()


def test_two_silent_channels_count_as_one(tmp_path: Path) -> None:
    tracks = decode_tracks(write(tmp_path / "quiet.wav", np.tile(silence(1.0), (2, 1))), separate=True, max_s=60)
    assert len(tracks) == 1
    tracks[0].close()


def test_channels_of_another_rate_keep_their_length(tmp_path: Path) -> None:
    stereo = np.concatenate([tone(3.0, 44_100), silence(3.0, 44_100)])
    tracks = decode_tracks(write(tmp_path / "call.flac", stereo, rate_hz=44_100, codec="flac"), separate=True, max_s=60)
    assert [round(track.duration_s, 2) for track in tracks] == [3.0, 3.0]
    for track in tracks:
        track.close()
