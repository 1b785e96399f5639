"""Where one recording in a file ends and the next begins."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from backend.engines.audio.decoding.links import find_links
from backend.engines.audio.decoding.recording import BLOCK_BYTES, OpenRecording
from tests.support.media import tone, write

KINDS = [
    ("a.opus", "libopus"),
    ("a.oga", "flac"),
    ("a.webm", "libopus"),
    ("a.mkv", "flac"),
    ("a.mp4", "aac"),
    ("a.flac", "flac"),
    ("a.wav", "pcm_s16le"),
]


def links(path: Path) -> list[tuple[int, int]]:
    with closing(OpenRecording(path)) as recording:
        return [(link.start, link.end) for link in find_links(recording)]


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_a_single_recording_is_one_link(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, tone(2.0, 48_000), rate_hz=48_000, codec=codec)
    assert links(path) == [(0, path.stat().st_size)]


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_joined_recordings_are_links_of_their_own(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, tone(2.0, 48_000), rate_hz=48_000, codec=codec)
    size = path.stat().st_size
    path.write_bytes(3 * path.read_bytes())
    assert links(path) == [(0, size), (size, 2 * size), (2 * size, 3 * size)]


def test_a_live_recording_of_unknown_size_is_searched_for_the_next(tmp_path: Path) -> None:
    options = {"live": "1"}
    path = write(tmp_path / "a.webm", tone(2.0, 48_000), rate_hz=48_000, codec="libopus", options=options)
    size = path.stat().st_size
    path.write_bytes(2 * path.read_bytes())
    assert links(path) == [(0, size), (size, 2 * size)]


def test_telephone_recordings_are_told_apart(tmp_path: Path) -> None:
    one = b"#!AMR\n" + (bytes([0x3C]) + bytes(31)) * 10
    (tmp_path / "a.amr").write_bytes(one + one)
    assert links(tmp_path / "a.amr") == [(0, len(one)), (len(one), 2 * len(one))]


@pytest.mark.parametrize("before_edge", [1, 5, 20, 40])
def test_a_mark_is_found_across_the_edge_of_a_block(tmp_path: Path, before_edge: int) -> None:
    one = write(tmp_path / "a.flac", tone(1.0), codec="flac").read_bytes()
    start = BLOCK_BYTES - before_edge
    (tmp_path / "a.flac").write_bytes(one + bytes(start - len(one)) + one)
    assert links(tmp_path / "a.flac") == [(0, start), (start, start + len(one))]
