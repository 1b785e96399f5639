"""Every query. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from backend.database.models import Conversation, ConversationStatus, Participant, SegmentRow, StoredObjectRow
from backend.domain.transcript import Segment, SpeakerStats, Transcript, Word
from backend.errors import NotFound


async def get_conversation(session: AsyncSession, conversation_id: str, *, detailed: bool = False) -> Conversation:
    """One conversation; `detailed` loads its participants, segments and objects too.

    Raises:
        NotFound: there is none with this id.
    """
    # PostgreSQL refuses a NUL in any text; no id has one.
    query = select(Conversation).where(Conversation.id == conversation_id.replace("\0", "?"))
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


async def list_conversations(
    session: AsyncSession, *, status: ConversationStatus | None, limit: int, offset: int
) -> tuple[Sequence[Conversation], int]:
    """A page of conversations, newest first, and how many there are in all."""
    wanted = [Conversation.status == status] if status else []
    total = (await session.execute(select(func.count()).select_from(Conversation).where(*wanted))).scalar_one()
    page = (
        select(Conversation)
        .where(*wanted)
        .order_by(Conversation.created_at.desc(), Conversation.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return (await session.execute(page)).scalars().all(), total


async def list_objects(session: AsyncSession, conversation_id: str) -> Sequence[StoredObjectRow]:
    query = select(StoredObjectRow).where(StoredObjectRow.conversation_id == conversation_id)
    return (await session.execute(query.order_by(StoredObjectRow.id))).scalars().all()


async def save_result(
    session: AsyncSession,
    conversation: Conversation,
    transcript: Transcript,
    stats: Mapping[str, SpeakerStats],
    objects: Sequence[StoredObjectRow],
    *,
    completed_at: datetime,
) -> None:
    """Write everything that was made of a conversation in the caller's one transaction."""
    participants = {
        label: Participant(
            conversation_id=conversation.id,
            position=position,
            label=label,
            speaking_time_s=stat.speaking_time_s,
            share=stat.share,
            word_count=stat.word_count,
            segment_count=stat.segment_count,
        )
        for position, (label, stat) in enumerate(stats.items())
    }
    conversation.status = ConversationStatus.COMPLETED
    conversation.completed_at = completed_at
    session.add(conversation)
    session.add_all(participants.values())
    await session.flush()
    session.add_all(
        SegmentRow(
            conversation_id=conversation.id,
            participant_id=participants[segment.speaker].id,
            position=position,
            start_s=segment.start_s,
            end_s=segment.end_s,
            text=segment.text,
            words=[_word_value(word) for word in segment.words] or None,
        )
        for position, segment in enumerate(transcript.segments)
        if segment.speaker is not None
    )
    session.add_all(objects)


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


def _word_value(word: Word) -> dict[str, object]:
    return {"word": word.text, "start": word.start_s, "end": word.end_s, "probability": word.probability}


def _word(value: Mapping[str, object]) -> Word:
    def number(name: str) -> float | None:
        found = value.get(name)
        return float(found) if isinstance(found, int | float) else None

    return Word(str(value["word"]), number("start"), number("end"), number("probability"))
