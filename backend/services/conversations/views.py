"""What a reader gets of a conversation: values, made from rows inside the transaction that loaded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from backend.database import transcripts
from backend.database.models import Conversation, StoredObjectRow
from backend.domain.states.conversations import ConversationStatus
from backend.domain.transcript import NamedSpeaker, Transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationView:
    """One conversation without its transcript. `recording_url` and `transcript_url` are locators."""

    id: str
    title: str | None
    status: ConversationStatus
    filename: str
    recording_url: str | None
    transcript_url: str | None
    duration_s: float | None
    language: str | None
    speaker_count: int | None
    engines: Mapping[str, str] | None
    error: str | None
    warnings: Sequence[str] | None
    created_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class ObjectView:
    """One stored object of a conversation."""

    kind: str
    store: str
    locator: str
    size_bytes: int
    sha256: str
    content_type: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailedConversation(ConversationView):
    """One conversation with everything; `transcript` is None unless it is completed."""

    participants: tuple[NamedSpeaker, ...]
    objects: tuple[ObjectView, ...]
    transcript: Transcript | None


def view_of(row: Conversation) -> ConversationView:
    return ConversationView(**_columns(row))


def detail_of(row: Conversation) -> DetailedConversation:
    """Return everything about a conversation that was loaded `detailed`."""
    return DetailedConversation(
        **_columns(row),
        participants=transcripts.read_speakers(row),
        objects=tuple(object_view_of(item) for item in row.objects),
        transcript=transcripts.read(row) if row.status == ConversationStatus.COMPLETED else None,
    )


def object_view_of(row: StoredObjectRow) -> ObjectView:
    return ObjectView(row.kind, row.store, row.locator, row.size_bytes, row.sha256, row.content_type, row.created_at)


def _columns(row: Conversation) -> dict[str, Any]:
    """The columns that both views have, by name."""
    values = {field.name: getattr(row, field.name) for field in fields(ConversationView)}
    return values | {"status": ConversationStatus(row.status)}
