"""Recordings as programs and accidents make them: times and durations are those of players, and losses are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.engines.audio.samples import decode_tracks
from backend.errors import InvalidAudio
from benchmarks.containers import PAUSE_S, Heard, hear_sound, judge, read_speech
from benchmarks.odd_recordings import Odd, Samples, Track, odd_recordings, write
from tests.support.media import decode

RECORDINGS = odd_recordings(PAUSE_S)


@pytest.fixture(scope="module")
def speech() -> Samples:
    return read_speech()


@pytest.fixture(scope="module")
def plain(speech: Samples, tmp_path_factory: pytest.TempPathFactory) -> Heard:
    path = tmp_path_factory.mktemp("plain") / "plain.flac"
    write(path, [Track(speech, "flac", 16_000)])
    return hear_sound(path)


@pytest.mark.parametrize("odd", [pytest.param(odd, id=odd.name) for odd in RECORDINGS])
def test_sound_stands_where_players_play_it(odd: Odd, speech: Samples, plain: Heard, tmp_path: Path) -> None:
    expected = odd.make(tmp_path / odd.name, speech)
    try:
        heard = hear_sound(tmp_path / odd.name)
    except InvalidAudio:
        assert expected.may_refuse
        return
    is_right, off_s = judge(expected, plain, heard)
    assert is_right, (heard, off_s, expected)


def test_one_track_can_be_chosen(speech: Samples, tmp_path: Path) -> None:
    write(tmp_path / "two.mkv", [Track(np.zeros_like(speech)), Track(speech)])
    levels = []
    for number in (0, 1):
        with decode(tmp_path / "two.mkv", max_s=60, stream=number) as audio:
            levels.append(float(np.abs(audio.read()).max()))
    assert levels[0] < 0.001 < 0.1 < levels[1]


def test_a_track_that_is_not_there_is_refused_with_how_many_there_are(speech: Samples, tmp_path: Path) -> None:
    write(tmp_path / "one.mkv", [Track(speech)])
    with pytest.raises(InvalidAudio, match="no audio track 3: the file has 1"):
        decode(tmp_path / "one.mkv", max_s=60, stream=3)


def test_separate_tracks_are_one_speaker_each(speech: Samples, tmp_path: Path) -> None:
    stereo = np.concatenate([speech, 0.3 * np.roll(speech, 5_000, axis=1)])
    write(tmp_path / "two.mkv", [Track(stereo), Track(speech[:, ::-1].copy())])
    tracks = decode_tracks(tmp_path / "two.mkv", separate=True, max_s=60)
    assert len(tracks) == 2
    for track in tracks:
        track.close()


def test_an_inverted_channel_is_the_same_sound(speech: Samples, tmp_path: Path) -> None:
    write(tmp_path / "inverted.mp3", [Track(np.concatenate([speech, -0.5 * speech]), "libmp3lame")])
    [track] = decode_tracks(tmp_path / "inverted.mp3", separate=True, max_s=60)
    track.close()


def test_polarity_that_changes_on_the_way_loses_nobody(speech: Samples, tmp_path: Path) -> None:
    half = speech.shape[1] // 2
    other = np.concatenate([speech[:, :half], -speech[:, half:]], axis=1)
    write(tmp_path / "turned.flac", [Track(np.concatenate([speech, other]), "flac")])
    with decode(tmp_path / "turned.flac", max_s=60) as audio:
        mixed = audio.read()
    for part in (slice(0, half), slice(half, None)):
        loss = float(np.square(mixed[part]).mean() / np.square(speech[0, part]).mean())
        assert loss == pytest.approx(1.0, abs=0.1)
