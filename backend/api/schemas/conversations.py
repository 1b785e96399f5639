"""Conversations in the API: list, detail, deletion."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from backend.api.schemas.transcripts import SpeakerStatsOut, TranscriptOut
from backend.domain.states.conversations import ConversationStatus
from backend.services.conversations.views import ConversationView, DetailedConversation


class ConversationSummary(BaseModel):
    """A conversation in a list."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    title: str | None
    status: ConversationStatus
    filename: str
    recording_url: str | None
    transcript_url: str | None
    duration_s: float | None
    language: str | None
    speaker_count: int | None
    engines: dict[str, str] | None
    error: str | None
    warnings: list[str] | None
    created_at: datetime
    completed_at: datetime | None


class ConversationPage(BaseModel):
    conversations: list[ConversationSummary]
    total: int
    limit: int
    offset: int

    @classmethod
    def from_views(cls, found: Sequence[ConversationView], total: int, limit: int, offset: int) -> ConversationPage:
        return cls(
            conversations=[ConversationSummary.model_validate(item) for item in found],
            total=total,
            limit=limit,
            offset=offset,
        )


class ParticipantOut(SpeakerStatsOut):
    label: str
    display_name: str | None = Field(description="Name of the person if the voice was recognised")


class StoredObjectOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    kind: str
    store: str
    locator: str
    size_bytes: int
    sha256: str
    content_type: str


class ConversationDetail(ConversationSummary):
    participants: list[ParticipantOut]
    objects: list[StoredObjectOut]
    transcript: TranscriptOut | None

    @classmethod
    def from_view(cls, found: DetailedConversation) -> ConversationDetail:
        said = found.transcript
        return cls(
            **ConversationSummary.model_validate(found).model_dump(),
            participants=[ParticipantOut.model_validate(item) for item in found.participants],
            objects=[StoredObjectOut.model_validate(item) for item in found.objects],
            transcript=None if said is None else TranscriptOut.from_transcript(said, found.participants),
        )


class DeletionOut(BaseModel):
    """A deletion that waits for a store."""

    model_config = ConfigDict(from_attributes=True)

    conversation_id: str
    left: list[str] = Field(
        description="Locators of objects that still exist, or names of stores that could not be listed"
    )
    reason: str | None = Field(description="Why deletion is still pending. It is retried automatically")
