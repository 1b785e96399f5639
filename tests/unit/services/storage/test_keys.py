"""Object keys: what the grammar yields, and what no file name can make it yield."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import InvalidInput
from backend.services.storage.keys import (
    audio_key,
    distinct_key,
    made_here,
    metadata_key,
    transcript_key,
    validated_conversation_id,
    validated_key,
)

AT = datetime(2026, 1, 15, 12, tzinfo=UTC)


ALIKE = st.text(alphabet=st.sampled_from("a.b/\\ \0\r\n\u202e\u2066\u200d\u0301\ud800\ufeff\u2028é🎙-_%"), max_size=40)


NAMES = st.one_of(st.text(), ALIKE, st.text(min_size=200, max_size=400))


@given(NAMES, st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z"), st.datetimes(timezones=st.just(UTC)))
def test_every_key_is_valid_and_fits(name: str, conversation_id: str, at: datetime) -> None:
    keys = [audio_key(conversation_id, name, at), metadata_key(conversation_id, name, at)]
    for key in [*keys, transcript_key(conversation_id, at), distinct_key(keys[0], "a1b2c3")]:
        assert validated_key(key).startswith(f"{conversation_id}/{at.year:04d}/")
        assert key.count("/") == 4
        assert len(key.rpartition("/")[2].encode()) <= 255


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


def test_every_key_of_a_conversation_and_the_folders_to_it_are_made_here() -> None:
    parts = audio_key("conv_4f2c9a51d0b84e7f8a3b6c1d2e3f4a5b", "meeting.wav", AT).split("/")
    assert all(made_here("/".join(parts[:length])) for length in range(1, len(parts) + 1))
    assert made_here(".spool/uploads/x") and made_here(".quarantine/other/2026")


@pytest.mark.parametrize(
    "path", ["2026/a.wav", "music", ".spoolx", "conv_1/a", "conv_1/2026/01/15/a/b", "conv_1/2026/x"]
)
def test_other_paths_are_not_made_here(path: str) -> None:
    assert not made_here(path)
