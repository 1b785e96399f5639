"""The manifest holds all that the rows of a conversation hold, and says plainly what is wrong with one that is none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.attribution import speaker_stats
from backend.domain.manifest import MANIFEST_VERSION, manifest_of, parse_manifest
from backend.domain.transcript import Segment, Transcript, Word
from backend.domain.voices import SpeakerIdentity, show_names
from backend.errors import InvalidInput, NewerManifest
from backend.services.storage import StoredObject

AT = datetime(2026, 1, 15, 9, 19, 5, 861978, tzinfo=UTC)
SHA = "65d2feeb89a0af6470668c1c984a5d3745c3c734154f454376afb22ac78d8079"
CONVERSATION = SimpleNamespace(id="conv_a", title="Standup", filename="meeting.wav", created_at=AT)
AUDIO = StoredObject(
    "s3://b/audio/conv_a/2026/01/15/m.wav", "s3", "conv_a/2026/01/15/m.wav", "audio", 9, SHA, "audio/wav"
)
TEXT = StoredObject(
    "./u/conv_a/2026/01/15/t.txt", "local", "conv_a/2026/01/15/t.txt", "transcript", 3, SHA, "text/plain"
)
AUDIO_VALUES = {"kind": "audio", "key": AUDIO.key, "size_bytes": 9, "sha256": SHA, "content_type": "x"}
PARTICIPANT = {
    "label": "Speaker 1",
    "display_name": None,
    "speaking_time_s": 1.0,
    "share": 0.5,
    "word_count": 1,
    "segment_count": 1,
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
SEGMENT = {"start_s": 0.0, "end_s": 1.0, "speaker": "Speaker 1", "text": "x"}
SAID = Transcript(
    (
        Segment(0.1, 0.9, "Hello.", (Word(" Hello.", 0.1, 0.9, 0.87654321), Word("?")), "Ada"),
        Segment(1.0, 2.0, "Yes.", (), "Speaker 2"),
    ),
    "en",
)
IDENTITIES = {
    "Ada": SpeakerIdentity("Speaker 1", (0.6, 0.8), "person_1"),
    "Speaker 2": SpeakerIdentity("Speaker 2", (1.0,)),
}


def document(**changes: Any) -> dict[str, object]:
    given: dict[str, Any] = {
        "status": "completed",
        "completed_at": AT + timedelta(seconds=5),
        "transcript": SAID,
        "stats": speaker_stats(SAID, None, {}),
        "identities": IDENTITIES,
        "duration_s": 33.0854321,
        "engines": {"transcription": "moonshine"},
        "media": {"format": "wav", "channels": 1},
        "warnings": ["Something."],
    }
    return manifest_of(CONVERSATION, [AUDIO, TEXT], **(given | changes))


def test_it_says_what_a_reader_of_the_file_looks_for() -> None:
    found = document()
    shown = {
        "manifest_version": MANIFEST_VERSION,
        "conversation_id": "conv_a",
        "status": "completed",
        "title": "Standup",
        "filename": "meeting.wav",
        "content_type": "audio/wav",
        "size_bytes": 9,
        "sha256": SHA,
        "uploaded_at": "2026-01-15T09:19:05.861978Z",
        "duration_s": 33.085,
        "language": "en",
        "speaker_count": 2,
        "engines": {"transcription": "moonshine"},
        "media": {"format": "wav", "channels": 1},
    }
    assert {name: found[name] for name in shown} == shown
    assert next(iter(found)) == "manifest_version"


def test_objects_are_named_by_key_because_they_move_between_stores() -> None:
    found = document()
    assert found["objects"] == [
        {"kind": "audio", "key": AUDIO.key, "size_bytes": 9, "sha256": SHA, "content_type": "audio/wav"},
        {"kind": "transcript", "key": TEXT.key, "size_bytes": 3, "sha256": SHA, "content_type": "text/plain"},
    ]
    assert "s3://" not in json.dumps(found)


def test_what_is_read_is_what_was_written() -> None:
    found = parse_manifest(json.dumps(document()))
    assert found.transcript is not None
    assert show_names(found.transcript, {item.label: item.name for item in found.speakers}) == SAID
    assert (found.uploaded_at, found.completed_at) == (AT, AT + timedelta(seconds=5))
    assert [(item.label, item.display_name) for item in found.participants] == [
        ("Speaker 1", "Ada"),
        ("Speaker 2", None),
    ]
    assert found == parse_manifest(document())


def test_voices_are_left_out() -> None:
    assert "0.6" not in json.dumps(document()) and "person_1" not in json.dumps(document())


def test_a_conversation_that_failed_has_no_transcript() -> None:
    failed = manifest_of(CONVERSATION, [AUDIO], status="failed", completed_at=AT, error="The engine broke.")
    found = parse_manifest(failed)
    assert (found.status, found.error, found.transcript, found.speaker_count) == (
        "failed",
        "The engine broke.",
        None,
        None,
    )
    assert [item.kind for item in found.objects] == ["audio"]


def test_instants_are_utc() -> None:
    elsewhere = SimpleNamespace(**vars(CONVERSATION) | {"created_at": AT.astimezone(timezone(timedelta(hours=9)))})
    found = manifest_of(elsewhere, [], status="failed", completed_at=None)
    assert found["uploaded_at"] == "2026-01-15T09:19:05.861978Z"


def test_a_newer_version_is_not_judged() -> None:
    with pytest.raises(NewerManifest, match="version 2; this Aperta reads up to 1"):
        parse_manifest({"manifest_version": 2, "all": "different"})


def test_what_a_later_release_adds_is_ignored() -> None:
    assert parse_manifest({**document(), "colour": "blue"}) == parse_manifest(document())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"manifest_version": None}, "manifest_version"),
        ({"conversation_id": "../x"}, "conversation_id"),
        ({"status": "processing"}, "status"),
        ({"filename": None}, "filename"),
        ({"sha256": "abc"}, "sha256"),
        ({"uploaded_at": "2026-01-15T09:19:05"}, "uploaded_at"),
        ({"duration_s": "long"}, "duration_s"),
        ({"objects": [{"kind": "audio"}]}, "objects.0.key"),
        ({"objects": [{**AUDIO_VALUES, "key": "conv_b/2026/01/15/m.wav"}]}, "objects.0.key"),
        ({"objects": [{**AUDIO_VALUES, "size_bytes": -1}]}, "objects.0.size_bytes"),
        ({"segments": [{"start_s": 0, "end_s": 1, "speaker": "Nobody", "text": "x"}]}, "segments.0.speaker"),
        ({"segments": [SEGMENT | {"words": [{"text": "x", "start_s": float("nan")}]}]}, "segments.0.words.0.start_s"),
        ({"participants": [PARTICIPANT, PARTICIPANT]}, "participants"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(change: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        parse_manifest({**document(), **change})


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", "[]", "null", '"text"', "{}", '{"manifest_version": 1}', "NaN", "[" * 5000]
)
def test_what_is_no_manifest_is_told(text: bytes | str) -> None:
    with pytest.raises(InvalidInput, match="no manifest"):
        parse_manifest(text)


@given(ANYTHING, st.sampled_from(sorted(document())))
def test_any_value_is_read_or_refused(value: object, name: str) -> None:
    """No other error, whatever is in the file."""
    try:
        parse_manifest({**document(), name: value})
    except InvalidInput:
        return
