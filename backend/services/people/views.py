"""What a caller gets of a person: values, made from rows. Prints are shown by their origin, never themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backend.database.models import Person, VoicePrint


@dataclass(frozen=True, slots=True)
class VoicePrintView:
    """Where a print comes from; `conversation_id` is None once that conversation is deleted."""

    conversation_id: str | None
    model: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PersonView:
    """A person and their prints."""

    id: str
    name: str
    created_at: datetime
    prints: tuple[VoicePrintView, ...]


def view_of(row: Person) -> PersonView:
    return PersonView(row.id, row.name, row.created_at, tuple(_print_of(item) for item in row.prints))


def _print_of(row: VoicePrint) -> VoicePrintView:
    return VoicePrintView(row.conversation_id, row.model, row.created_at)
