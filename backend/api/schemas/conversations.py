"""What goes over the wire: requests in, responses out. `from_*` turn domain values and rows into them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from backend.api.schemas.transcripts import SpeakerStatsOut, TranscriptOut, transcript_of
from backend.database.models import Conversation, ConversationStatus, StoredObjectRow


class ConversationSummary(BaseModel):
    """One row of the list."""

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
    def from_rows(cls, rows: Sequence[Conversation], total: int, limit: int, offset: int) -> ConversationPage:
        return cls(
            conversations=[ConversationSummary.model_validate(row) for row in rows],
            total=total,
            limit=limit,
            offset=offset,
        )


class ParticipantOut(SpeakerStatsOut):
    label: str
    display_name: str | None = Field(description="The person's name, if the voice is known")


class StoredObjectOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    kind: str
    store: str
    locator: str
    size_bytes: int
    sha256: str
    content_type: str

    @classmethod
    def from_row(cls, row: StoredObjectRow) -> StoredObjectOut:
        return cls.model_validate(row)


class ConversationDetail(ConversationSummary):
    participants: list[ParticipantOut]
    objects: list[StoredObjectOut]
    transcript: TranscriptOut | None

    @classmethod
    def from_row(cls, row: Conversation) -> ConversationDetail:
        summary = ConversationSummary.model_validate(row).model_dump()
        return cls(
            **summary,
            participants=[ParticipantOut.model_validate(item) for item in row.participants],
            objects=[StoredObjectOut.from_row(item) for item in row.objects],
            transcript=transcript_of(row) if row.status == ConversationStatus.COMPLETED else None,
        )


class DeletionOut(BaseModel):
    """A delete that waits for a store."""

    model_config = ConfigDict(from_attributes=True)

    conversation_id: str
    left: list[str] = Field(
        description="Locators of what is still stored, or the name of a store that could not be asked what it has"
    )
    reason: str | None = Field(description="What that waits for; it is deleted without being asked for again")
