"""Recordings in which every channel is a speaker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.engines.audio import decode_tracks
from tests.media import silence, tone, write


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
