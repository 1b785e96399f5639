"""The manifest of a conversation: all that its rows hold, as one JSON document beside its objects. Pure; no I/O.

The bucket or folder alone is enough to rebuild the database: `…_metadata.json` is written last, names every other
object with its size and hash, and repeats the transcript. Voices are left out: they are biometric data, a manifest is
write-once, and a person who asks to be erased must not remain in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal, Protocol

from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter, ValidationError, with_config

from backend.domain.transcript import NamedSpeaker, Segment, SpeakerStats, Transcript, Word
from backend.domain.voices import SpeakerIdentity, named_speakers, show_labels
from backend.errors import InvalidInput, NewerManifest

MANIFEST_VERSION = 1

Seconds = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ConversationFacts(Protocol):
    """What a manifest takes from the row of a conversation."""

    @property
    def id(self) -> str: ...
    @property
    def title(self) -> str | None: ...
    @property
    def filename(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


class ObjectFacts(Protocol):
    """What a manifest takes from a stored object. No locator: objects move between stores, their key stays."""

    @property
    def kind(self) -> Literal["audio", "transcript", "metadata"]: ...
    @property
    def key(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def content_type(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ManifestObject:
    """One stored object under the key that is the same in every store."""

    kind: Literal["audio", "transcript"]
    key: str
    size_bytes: Count
    sha256: Sha256
    content_type: Annotated[str, Field(max_length=255)]


@dataclass(frozen=True, slots=True)
class ManifestParticipant:
    label: Annotated[str, Field(min_length=1, max_length=64)]
    display_name: Annotated[str, Field(max_length=200)] | None
    speaking_time_s: Seconds
    share: Seconds
    word_count: Count
    segment_count: Count


@dataclass(frozen=True, slots=True)
class ManifestSegment:
    """`speaker` is a participant's label."""

    start_s: Seconds
    end_s: Seconds
    speaker: str
    text: str
    words: tuple[Word, ...] = ()


@with_config(ConfigDict(extra="ignore", allow_inf_nan=False))
@dataclass(frozen=True, slots=True)
class Manifest:
    """The document itself. The first rows say what a reader of the file looks for, the last what a rebuild needs."""

    conversation_id: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]
    status: Literal["completed", "failed"]
    title: Annotated[str, Field(max_length=500)] | None
    filename: Annotated[str, Field(max_length=255)]
    content_type: str | None
    size_bytes: Count | None
    sha256: Sha256 | None
    uploaded_at: AwareDatetime
    completed_at: AwareDatetime | None
    duration_s: Seconds | None
    language: Annotated[str, Field(max_length=16)] | None
    speaker_count: Count | None
    engines: dict[str, str] | None
    media: dict[str, str | int | float | None] | None
    warnings: tuple[str, ...]
    error: str | None
    objects: tuple[ManifestObject, ...]
    participants: tuple[ManifestParticipant, ...] = ()
    segments: tuple[ManifestSegment, ...] = ()
    manifest_version: int = field(default=MANIFEST_VERSION)

    @property
    def transcript(self) -> Transcript | None:
        """The transcript, whose speakers are labels; None if processing failed."""
        if self.status != "completed":
            return None
        segments = (Segment(item.start_s, item.end_s, item.text, item.words, item.speaker) for item in self.segments)
        return Transcript(tuple(segments), self.language)

    @property
    def speakers(self) -> tuple[NamedSpeaker, ...]:
        """The participants, in order of their position."""
        return tuple(NamedSpeaker.copied(item) for item in self.participants)


_DOCUMENT = TypeAdapter(Manifest)


def manifest_of(
    conversation: ConversationFacts,
    objects: Sequence[ObjectFacts],
    *,
    status: str,
    completed_at: datetime | None,
    transcript: Transcript | None = None,
    stats: Mapping[str, SpeakerStats] | None = None,
    identities: Mapping[str, SpeakerIdentity] | None = None,
    duration_s: float | None = None,
    engines: Mapping[str, str] | None = None,
    media: Mapping[str, str | int | float | None] | None = None,
    warnings: Sequence[str] = (),
    error: str | None = None,
) -> dict[str, object]:
    """Return the manifest as JSON-ready values.

    Args:
        conversation: its row, or anything with these attributes.
        objects: what is stored of it so far: the recording, and the transcript if there is one.
        status: completed or failed.
        completed_at: as in the row.
        transcript: as its speakers are shown; None if processing failed.
        stats: by speaker as the transcript calls them, in order of their position.
        identities: by speaker as the transcript calls them: the label, and the person if the voice is known.
        duration_s: of the recording.
        engines: role → engine that ran.
        media: what the recording's container said: format, codec, sample_rate_hz, channels.
        warnings: as in the row.
        error: why processing failed.
    """
    speakers = named_speakers(stats or {}, identities or {})
    recording = next((item for item in objects if item.kind == "audio"), None)
    manifest = Manifest(
        conversation_id=conversation.id,
        status="completed" if status == "completed" else "failed",
        title=conversation.title,
        filename=conversation.filename,
        content_type=recording.content_type if recording else None,
        size_bytes=recording.size_bytes if recording else None,
        sha256=recording.sha256 if recording else None,
        uploaded_at=conversation.created_at.astimezone(UTC),
        completed_at=completed_at.astimezone(UTC) if completed_at else None,
        duration_s=None if duration_s is None else round(duration_s, 3),
        language=transcript.language if transcript else None,
        speaker_count=len(transcript.speakers) if transcript else None,
        engines=dict(engines) if engines else None,
        media=dict(media) if media else None,
        warnings=tuple(warnings),
        error=error,
        objects=tuple(_object(item) for item in objects if item.kind != "metadata"),
        participants=tuple(_participant(speaker) for speaker in speakers),
        segments=_segments(show_labels(transcript, speakers)) if transcript else (),
    )
    values: dict[str, object] = _DOCUMENT.dump_python(manifest, mode="json")
    return {"manifest_version": values.pop("manifest_version"), **values}


def parse_manifest(document: Mapping[str, object] | bytes | str) -> Manifest:
    """Return the manifest that a document holds.

    Args:
        document: the JSON text, or what it was parsed to. Names that this version does not know are ignored.

    Raises:
        InvalidInput: no manifest, or a field that makes no sense; the message names it.
        NewerManifest: a newer Aperta wrote it.
    """
    try:
        manifest = _validated(document)
    except ValidationError as error:
        raise InvalidInput(f"This is no manifest: {_describe(error)}.") from error
    known = [item.label for item in manifest.participants]
    if len(set(known)) < len(known):
        raise InvalidInput("This is no manifest: participants: two have the same label.")
    for number, segment in enumerate(manifest.segments):
        if segment.speaker not in known:
            raise InvalidInput(f"This is no manifest: segments.{number}.speaker: is no participant.")
    for number, item in enumerate(manifest.objects):
        if not item.key.startswith(f"{manifest.conversation_id}/"):
            raise InvalidInput(f"This is no manifest: objects.{number}.key: belongs to another conversation.")
    return manifest


@dataclass(frozen=True, slots=True)
class _Version:
    manifest_version: Count


_VERSION = TypeAdapter(_Version)


def _validated(document: Mapping[str, object] | bytes | str) -> Manifest:
    """The version first: what a newer Aperta wrote may make no sense by today's rules."""
    text = document if isinstance(document, bytes | str) else json.dumps(document, default=str)
    version = _VERSION.validate_json(text, strict=True).manifest_version
    if version > MANIFEST_VERSION:
        raise NewerManifest(
            f"This manifest has version {version}; this Aperta reads up to {MANIFEST_VERSION}. Use a newer Aperta."
        )
    return _DOCUMENT.validate_json(text, strict=True)


def _object(item: ObjectFacts) -> ManifestObject:
    kind: Literal["audio", "transcript"] = "audio" if item.kind == "audio" else "transcript"
    return ManifestObject(kind, item.key, item.size_bytes, item.sha256, item.content_type)


def _participant(speaker: NamedSpeaker) -> ManifestParticipant:
    return ManifestParticipant(
        label=speaker.label,
        display_name=speaker.display_name,
        speaking_time_s=speaker.speaking_time_s,
        share=speaker.share,
        word_count=speaker.word_count,
        segment_count=speaker.segment_count,
    )


def _segments(transcript: Transcript) -> tuple[ManifestSegment, ...]:
    return tuple(
        ManifestSegment(item.start_s, item.end_s, item.speaker, item.text, item.words)
        for item in transcript.segments
        if item.speaker is not None
    )


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
