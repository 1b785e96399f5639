"""People with known voices in the API. A print is shown by its origin; the embedding is never sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from backend.domain.voices import MAX_NAME
from backend.services.people.views import PersonView


class PersonIn(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(
        min_length=1,
        max_length=MAX_NAME,
        description="Name that transcripts show for this person",
        examples=["Ada Byron"],
    )


class VoiceIn(BaseModel):
    """A speaker of a conversation."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    conversation_id: str = Field(min_length=1, max_length=64, examples=["conv_4f2c9a51d0b84e7f8a3b6c1d2e3f4a5b"])
    speaker: str = Field(
        min_length=1, max_length=MAX_NAME, description="Speaker as named in the transcript", examples=["Speaker 2"]
    )


class VoicePrintOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    conversation_id: str | None = Field(
        description="Conversation that the voice was taken from; null once it is deleted"
    )
    model: str = Field(description="Engine that made the print; only recordings diarized by it are compared")
    created_at: datetime


class PersonOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=["person_0b6c1d2e3f4a5b4f2c9a51d0b84e7f8a"])
    name: str
    created_at: datetime
    prints: list[VoicePrintOut] = Field(description="If empty, the person is not recognised")


class PeoplePage(BaseModel):
    people: list[PersonOut]
    total: int
    limit: int
    offset: int

    @classmethod
    def from_views(cls, found: Sequence[PersonView], total: int, limit: int, offset: int) -> PeoplePage:
        return cls(people=[PersonOut.model_validate(item) for item in found], total=total, limit=limit, offset=offset)
