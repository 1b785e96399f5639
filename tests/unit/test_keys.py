"""Object keys: what the grammar yields, and what no file name can make it yield."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import InvalidInput
from backend.services.storage.keys import (
    attachment,
    audio_key,
    distinct_key,
    metadata_key,
    safe_filename,
    transcript_key,
    validated_conversation_id,
    validated_key,
)

AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
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


@given(NAMES, st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z"), st.datetimes(timezones=st.just(UTC)))
def test_every_key_is_valid_and_fits(name: str, conversation_id: str, at: datetime) -> None:
    keys = [audio_key(conversation_id, name, at), metadata_key(conversation_id, name, at)]
    for key in [*keys, transcript_key(conversation_id, at), distinct_key(keys[0], "a1b2c3")]:
        assert validated_key(key).startswith(f"{conversation_id}/{at.year:04d}/")
        assert key.count("/") == 4
        assert len(key.rpartition("/")[2].encode()) <= 255


@given(NAMES)
def test_a_content_disposition_is_one_header_line_of_ascii(name: str) -> None:
    header = attachment(name)
    assert header.isascii() and header.isprintable()
    assert header.count('"') == 2


def test_the_three_keys_of_a_conversation() -> None:
    assert audio_key("conv_X", "meeting.wav", AT) == "conv_X/2026/01/15/meeting.wav"
    assert metadata_key("conv_X", "meeting.wav", AT) == "conv_X/2026/01/15/meeting_metadata.json"
    assert transcript_key("conv_X", AT) == "conv_X/2026/01/15/conv_X_transcript.txt"


def test_the_date_is_that_of_utc() -> None:
    tokyo = datetime(2026, 1, 16, 3, tzinfo=timezone(timedelta(hours=9)))
    assert transcript_key("c", tokyo).startswith("c/2026/01/15/")


def test_an_instant_without_time_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        audio_key("conv_X", "meeting.wav", AT.replace(tzinfo=None))


def test_a_distinct_key_differs_in_the_stem() -> None:
    assert distinct_key("c/2026/01/15/meeting.wav", "a1") == "c/2026/01/15/meeting-a1.wav"
    assert distinct_key("c/2026/01/15/meeting", "a1") == "c/2026/01/15/meeting-a1"


@pytest.mark.parametrize("conversation_id", ["", "a" * 65, "../x", "a/b", "a b", "ä", "a\n", ".", "a.b"])
def test_a_bad_conversation_id_is_refused(conversation_id: str) -> None:
    with pytest.raises(InvalidInput):
        validated_conversation_id(conversation_id)
