"""The rows of a transcript: the one function that writes them, the one that erases them, and the one that reads them.

`write` serves the commit of a job and the rebuild from a manifest; `erase` serves deletion, refusal, cancellation and
the replacement of a failed conversation. A search index, revisions and tenancy hook in here, and nowhere else: no other
module inserts or deletes participants, segments or voices of participants. Each function works inside the caller's
transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database.models import Conversation, Participant, ParticipantVoice, Person, SegmentRow, VoicePrint
from backend.domain.rendering.formats import to_text
from backend.domain.transcript import NamedSpeaker, Segment, Transcript, Word
from backend.domain.voices import SpeakerIdentity, show_names

SEGMENTS_AT_ONCE = 250
"""Rows in one statement: a recording of many hours has thousands, and other tasks need the event loop in between."""


async def write(
    session: AsyncSession,
    conversation: Conversation,
    transcript: Transcript,
    speakers: Sequence[NamedSpeaker],
    identities: Collection[SpeakerIdentity] = (),
) -> None:
    """Write what was said in a conversation that has no transcript: rows, full text, language, number of speakers.

    Args:
        session: its transaction includes the conversation's own row, which may be new.
        conversation: receives the text and what follows from the transcript.
        transcript: its segments name speakers by their labels.
        speakers: everyone who takes part, in order of their position.
        identities: the voices to store. The voice of a person who was forgotten after they were recognised is left out.
    """
    conversation.transcript = to_text(show_names(transcript, {item.label: item.name for item in speakers}))
    conversation.language = transcript.language
    conversation.speaker_count = len(transcript.speakers)
    participants = {item.label: _participant(conversation.id, position, item) for position, item in enumerate(speakers)}
    session.add(conversation)
    session.add_all(participants.values())
    await session.flush()  # locks SQLite for writing, so that no person is forgotten between the query and the insert
    await _add_voices(session, participants, identities)
    spoken = [(n, segment) for n, segment in enumerate(transcript.segments) if segment.speaker is not None]
    for begin in range(0, len(spoken), SEGMENTS_AT_ONCE):
        rows = [
            _segment_values(conversation.id, participants[str(segment.speaker)].id, position, segment)
            for position, segment in spoken[begin : begin + SEGMENTS_AT_ONCE]
        ]
        await session.execute(insert(SegmentRow), rows)


async def erase(session: AsyncSession, conversation_id: str) -> None:
    """Erase what was said in a conversation, by whom, and how they sound. Its own row and its objects stay.

    Voices go with their participants (ON DELETE CASCADE). Without a transcript this changes nothing.
    """
    await session.execute(delete(SegmentRow).where(SegmentRow.conversation_id == conversation_id))
    await session.execute(delete(Participant).where(Participant.conversation_id == conversation_id))
    erased = {"transcript": None, "language": None, "speaker_count": None}
    await session.execute(update(Conversation).where(Conversation.id == conversation_id).values(erased))


def read(conversation: Conversation) -> Transcript:
    """Return the transcript, with the names it shows, of a conversation that was loaded `detailed`."""
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


def read_speakers(conversation: Conversation) -> tuple[NamedSpeaker, ...]:
    """Return the speakers, in order of their position, of a conversation that was loaded `detailed`."""
    return tuple(NamedSpeaker.copied(row) for row in conversation.participants)


async def _add_voices(
    session: AsyncSession, participants: Mapping[str, Participant], identities: Collection[SpeakerIdentity]
) -> None:
    people = {identity.person_id for identity in identities if identity.person_id}
    enrolled: set[str] = set()
    if people:
        await session.execute(select(Person.id).where(Person.id.in_(people)).with_for_update(read=True, key_share=True))
        query = select(VoicePrint.person_id).where(VoicePrint.person_id.in_(people))
        enrolled = set((await session.execute(query)).scalars())
    session.add_all(
        ParticipantVoice(
            participant=participants[identity.label], person_id=identity.person_id, embedding=identity.voice
        )
        for identity in identities
        if identity.person_id is None or identity.person_id in enrolled
    )


def _participant(conversation_id: str, position: int, speaker: NamedSpeaker) -> Participant:
    return Participant(
        conversation_id=conversation_id,
        position=position,
        label=speaker.label,
        display_name=speaker.display_name,
        speaking_time_s=speaker.speaking_time_s,
        share=speaker.share,
        word_count=speaker.word_count,
        segment_count=speaker.segment_count,
    )


def _segment_values(conversation_id: str, participant_id: int, position: int, segment: Segment) -> dict[str, object]:
    return {
        "conversation_id": conversation_id,
        "participant_id": participant_id,
        "position": position,
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "text": segment.text,
        "words": [_word_value(word) for word in segment.words] or None,
    }


def _word_value(word: Word) -> dict[str, object]:
    """Return a word as `SegmentRow.words` holds it; `_word` is the way back."""
    return {"word": word.text, "start": word.start_s, "end": word.end_s, "probability": word.probability}


def _word(value: Mapping[str, object]) -> Word:
    def number(name: str) -> float | None:
        found = value.get(name)
        return float(found) if isinstance(found, int | float) else None

    return Word(str(value["word"]), number("start"), number("end"), number("probability"))
