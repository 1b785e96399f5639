"""Queries about people and their voices. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from backend.database.models import (
    Participant,
    ParticipantVoice,
    Person,
    VoicePrint,
)
from backend.domain.voices import Voice
from backend.errors import NotFound


async def get_person(session: AsyncSession, person_id: str, *, lock: bool = False) -> Person:
    """Get one person with their prints; `lock` prevents changes to either until the transaction ends.

    Raises:
        NotFound: no person has this id.
    """
    query = select(Person).where(Person.id == person_id.replace("\0", "?")).options(selectinload(Person.prints))
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"There is no person {person_id!r}.")
    return found


async def delete_person(session: AsyncSession, person: Person) -> None:
    """Delete a person and their prints."""
    await session.delete(person)


async def list_people(session: AsyncSession, *, limit: int, offset: int) -> tuple[Sequence[Person], int]:
    """Get a page of people with their prints, by name, and the total."""
    total = (await session.execute(select(func.count()).select_from(Person))).scalar_one()
    page = (
        select(Person).options(selectinload(Person.prints)).order_by(Person.name, Person.id).limit(limit).offset(offset)
    )
    return (await session.execute(page)).scalars().all(), total


async def list_prints(session: AsyncSession, model: str) -> Sequence[tuple[Person, Voice]]:
    """Every print that this model made, with its person, oldest first."""
    query = select(Person, VoicePrint.embedding).join(VoicePrint.person).where(VoicePrint.model == model)
    return [(person, voice) for person, voice in await session.execute(query.order_by(VoicePrint.id))]


async def find_print_owner(session: AsyncSession, voice: Voice) -> Person | None:
    """The person who was enrolled with exactly this voice."""
    query = select(Person).join(VoicePrint).where(VoicePrint.embedding == voice).limit(1)
    return (await session.execute(query)).scalar_one_or_none()


async def list_participants(session: AsyncSession, conversation_id: str) -> Sequence[Participant]:
    query = select(Participant).where(Participant.conversation_id == conversation_id)
    return (await session.execute(query.order_by(Participant.position))).scalars().all()


async def find_participant_voice(session: AsyncSession, participant_id: int) -> Voice | None:
    row = await session.get(ParticipantVoice, participant_id)
    return row.embedding if row else None


async def participant_voices(session: AsyncSession, batch_size: int = 500) -> AsyncIterator[dict[int, Voice]]:
    """All stored voices by participant id, in batches."""
    last = 0
    query = select(ParticipantVoice.participant_id, ParticipantVoice.embedding).order_by(
        ParticipantVoice.participant_id
    )
    while rows := (await session.execute(query.where(ParticipantVoice.participant_id > last).limit(batch_size))).all():
        yield {row.participant_id: row.embedding for row in rows}
        last = rows[-1].participant_id


async def delete_voices_of(session: AsyncSession, person_id: str) -> None:
    """Delete the voices of all participants who were recognised as this person."""
    await session.execute(delete(ParticipantVoice).where(ParticipantVoice.person_id == person_id))


async def delete_voices(session: AsyncSession, participants: Collection[int]) -> None:
    if participants:
        await session.execute(delete(ParticipantVoice).where(ParticipantVoice.participant_id.in_(participants)))
