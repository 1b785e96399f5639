"""Every query. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from backend.database.models import (
    Conversation,
    ConversationStatus,
    Participant,
    ParticipantVoice,
    Person,
    SegmentRow,
    StoredObjectRow,
    VoicePrint,
)
from backend.domain.transcript import Segment, SpeakerStats, Transcript, Word
from backend.domain.voices import SpeakerIdentity
from backend.errors import NotFound

SEGMENTS_AT_ONCE = 250
"""Rows in one statement: a recording of many hours has thousands, and others want the event loop in between."""


async def get_conversation(
    session: AsyncSession, conversation_id: str, *, detailed: bool = False, lock: bool = False
) -> Conversation:
    """One conversation; `detailed` loads its participants, segments and objects too.

    `lock` keeps others from changing or deleting it until the transaction ends (SQLite has one writer anyway).

    Raises:
        NotFound: there is none with this id, or it is being deleted.
    """
    # PostgreSQL refuses a NUL in any text; no id has one.
    wanted = (Conversation.id == conversation_id.replace("\0", "?"), Conversation.deleted_at.is_(None))
    query = select(Conversation).where(*wanted)
    if lock:
        query = query.with_for_update()
    if detailed:
        query = query.options(
            selectinload(Conversation.participants),
            selectinload(Conversation.segments).selectinload(SegmentRow.participant),
            selectinload(Conversation.objects),
        )
    found = (await session.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"There is no conversation {conversation_id!r}.")
    return found


async def find_conversation(session: AsyncSession, conversation_id: str) -> Conversation | None:
    """One conversation, or None if there is none or it is being deleted."""
    try:
        return await get_conversation(session, conversation_id)
    except NotFound:
        return None


async def list_conversations(
    session: AsyncSession, *, status: ConversationStatus | None, limit: int, offset: int
) -> tuple[Sequence[Conversation], int]:
    """A page of conversations, newest first, and how many there are in all; none that is being deleted."""
    wanted = [Conversation.deleted_at.is_(None), *([Conversation.status == status] if status else [])]
    total = (await session.execute(select(func.count()).select_from(Conversation).where(*wanted))).scalar_one()
    page = (
        select(Conversation)
        .where(*wanted)
        .order_by(Conversation.created_at.desc(), Conversation.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return (await session.execute(page)).scalars().all(), total


async def save_result(
    session: AsyncSession,
    conversation: Conversation,
    transcript: Transcript,
    stats: Mapping[str, SpeakerStats],
    objects: Sequence[StoredObjectRow],
    *,
    identities: Mapping[str, SpeakerIdentity],
    completed_at: datetime,
) -> None:
    """Write everything that was made of a conversation in the caller's one transaction.

    `stats` and `identities` are keyed as the transcript calls its speakers.
    """
    participants = {
        speaker: Participant(
            conversation_id=conversation.id,
            position=position,
            label=identities[speaker].label if speaker in identities else speaker,
            speaking_time_s=stat.speaking_time_s,
            share=stat.share,
            word_count=stat.word_count,
            segment_count=stat.segment_count,
        )
        for position, (speaker, stat) in enumerate(stats.items())
    }
    conversation.status = ConversationStatus.COMPLETED
    conversation.completed_at = completed_at
    session.add(conversation)
    session.add_all(participants.values())
    await session.flush()  # SQLite is locked for writing from here on: nobody is forgotten between look and write
    await _identify(session, participants, identities)
    spoken = [(n, segment) for n, segment in enumerate(transcript.segments) if segment.speaker is not None]
    for begin in range(0, len(spoken), SEGMENTS_AT_ONCE):
        rows = [
            {
                "conversation_id": conversation.id,
                "participant_id": participants[str(segment.speaker)].id,
                "position": position,
                "start_s": segment.start_s,
                "end_s": segment.end_s,
                "text": segment.text,
                "words": [word_value(word) for word in segment.words] or None,
            }
            for position, segment in spoken[begin : begin + SEGMENTS_AT_ONCE]
        ]
        await session.execute(insert(SegmentRow), rows)
    session.add_all(objects)


async def _identify(
    session: AsyncSession, participants: Mapping[str, Participant], identities: Mapping[str, SpeakerIdentity]
) -> None:
    """Give participants names and voices; no voice of anybody who was forgotten since they were recognised."""
    people = {identity.person_id for identity in identities.values() if identity.person_id}
    enrolled: set[str] = set()
    if people:
        await session.execute(select(Person.id).where(Person.id.in_(people)).with_for_update(read=True, key_share=True))
        query = select(VoicePrint.person_id).where(VoicePrint.person_id.in_(people))
        enrolled = set((await session.execute(query)).scalars())
    for speaker, identity in identities.items():
        if identity.person_id:
            participants[speaker].display_name = speaker
        if identity.person_id is None or identity.person_id in enrolled:
            participant, person_id = participants[speaker], identity.person_id
            session.add(ParticipantVoice(participant=participant, person_id=person_id, embedding=identity.voice))


def to_transcript(conversation: Conversation) -> Transcript:
    """The domain value back from the rows of a conversation that was loaded `detailed`."""
    segments = (
        Segment(
            row.start_s,
            row.end_s,
            row.text,
            tuple(_word(value) for value in row.words or ()),
            row.participant.display_name or row.participant.label,
        )
        for row in conversation.segments
    )
    return Transcript(tuple(segments), conversation.language)


def word_value(word: Word) -> dict[str, object]:
    """A word as `SegmentRow.words` holds it."""
    return {"word": word.text, "start": word.start_s, "end": word.end_s, "probability": word.probability}


def _word(value: Mapping[str, object]) -> Word:
    def number(name: str) -> float | None:
        found = value.get(name)
        return float(found) if isinstance(found, int | float) else None

    return Word(str(value["word"]), number("start"), number("end"), number("probability"))
