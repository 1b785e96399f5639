"""File names that clients send."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.filenames import attachment, safe_filename

ALIKE = st.text(alphabet=st.sampled_from("a.b/\\ \0\r\n\u202e\u2066\u200d\u0301\ud800\ufeff\u2028é🎙-_%"), max_size=40)


NAMES = st.one_of(st.text(), ALIKE, st.text(min_size=200, max_size=400))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("meeting.wav", "meeting.wav"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\talk.m4a", "talk.m4a"),
        (".htaccess", "htaccess"),
        ("...wav", "wav"),
        ("  spaced out .wav ", "spaced out.wav"),
        ("", "recording"),
        ("..", "recording"),
        ("a/..", "recording"),
        ("folder/", "recording"),
        ("nul\0l\r\n.wav", "null.wav"),
        ("evil\u202egpj.wav", "evilgpj.wav"),
        ("re\u0301sume\u0301.wav", "r\u00e9sum\u00e9.wav"),
        ("\ud800lone.wav", "lone.wav"),
        ("👩\u200d💻.ogg", "👩\u200d💻.ogg"),
        ("archive.tar.gz", "archive.tar.gz"),
    ],
)
def test_safe_filename(name: str, safe: str) -> None:
    assert safe_filename(name) == safe


def test_a_long_name_keeps_its_extension() -> None:
    name = safe_filename("会" * 300 + ".flac")
    assert name.endswith("会.flac")
    assert len(name.encode()) <= 232


@given(NAMES)
def test_a_safe_name_is_one_harmless_component(name: str) -> None:
    safe = safe_filename(name)
    assert safe and safe == safe.strip() and not safe.startswith(".")
    assert PurePosixPath(safe).name == safe and "\\" not in safe
    assert len(safe.encode()) <= 232, "room for a suffix or _metadata.json"
    assert unicodedata.is_normalized("NFC", safe)
    assert not {unicodedata.category(c) for c in safe.replace("\u200c", "").replace("\u200d", "")} & {"Cc", "Cf", "Cs"}


@given(NAMES)
def test_a_safe_name_stays_itself(name: str) -> None:
    assert safe_filename(safe_filename(name)) == safe_filename(name)


@given(NAMES)
def test_a_content_disposition_is_one_header_line_of_ascii(name: str) -> None:
    header = attachment(name)
    assert header.isascii() and header.isprintable()
    assert header.count('"') == 2
