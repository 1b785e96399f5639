"""The rows of a transcript: written, read and erased in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

from backend.database import conversations, transcripts
from backend.database.models import Base, Conversation, ParticipantVoice
from backend.database.session import Database
from backend.domain.states.conversations import ConversationStatus
from backend.domain.transcript import NamedSpeaker, Segment, Transcript, Word
from backend.domain.voices import SpeakerIdentity
from tests.support.recordings import open_database

AT = datetime(2026, 1, 15, tzinfo=UTC)
FIGURES = {"speaking_time_s": 1.0, "share": 0.5, "word_count": 2, "segment_count": 1}
SPEAKERS = (
    NamedSpeaker(**FIGURES, label="Speaker 1", display_name="Ada Byron"),
    NamedSpeaker(**FIGURES, label="Speaker 2"),
)
SAID = Transcript(
    (
        Segment(0.1, 0.9, "Good morning.", (Word(" Good", 0.1, 0.4, 0.9), Word(" morning.")), "Speaker 1"),
        Segment(1.2, 1.8, "Hello, Ada.", (), "Speaker 2"),
    ),
    "en",
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(tmp_path / "rows.db")
    yield database
    await database.close()


async def write(database: Database, said: Transcript = SAID) -> None:
    row = Conversation(id="conv_1", status=ConversationStatus.COMPLETED, filename="a.wav", created_at=AT)
    async with database.transaction() as session:
        await transcripts.write(session, row, said, SPEAKERS, [SpeakerIdentity("Speaker 2", (1.0,))])


async def get(database: Database) -> Conversation:
    async with database.transaction() as session:
        return await conversations.get_conversation(session, "conv_1", detailed=True)


async def test_a_transcript_is_read_as_it_was_written_with_names_in_place_of_labels(database: Database) -> None:
    await write(database)
    found = transcripts.read(await get(database))
    assert [segment.speaker for segment in found.segments] == ["Ada Byron", "Speaker 2"]
    assert [(segment.start_s, segment.text, segment.words) for segment in found.segments] == [
        (segment.start_s, segment.text, segment.words) for segment in SAID.segments
    ]


async def test_text_language_and_number_of_speakers_follow_from_the_transcript(database: Database) -> None:
    await write(database)
    row = await get(database)
    assert (row.transcript, row.language, row.speaker_count) == (
        "Ada Byron: Good morning.\nSpeaker 2: Hello, Ada.",
        "en",
        2,
    )


async def test_a_transcript_of_several_batches_keeps_its_order(database: Database) -> None:
    count = 2 * transcripts.SEGMENTS_AT_ONCE + 1
    await write(database, Transcript(tuple(Segment(n, n + 1, str(n), (), "Speaker 1") for n in range(count))))
    assert [row.text for row in (await get(database)).segments] == [str(n) for n in range(count)]


@pytest.mark.parametrize("table", ["participants", "segments", "participant_voices"])
async def test_erasing_leaves_no_row(database: Database, table: str) -> None:
    await write(database)
    async with database.transaction() as session:
        await transcripts.erase(session, "conv_1")
    async with database.transaction() as session:
        count = select(func.count()).select_from(Base.metadata.tables[table])
        assert (await session.execute(count)).scalar_one() == 0


async def test_erasing_leaves_the_conversation_without_a_text(database: Database) -> None:
    await write(database)
    async with database.transaction() as session:
        await transcripts.erase(session, "conv_1")
    row = await get(database)
    assert (row.transcript, row.language, row.speaker_count, row.filename) == (None, None, None, "a.wav")


async def test_removing_a_conversation_erases_its_voices(database: Database) -> None:
    await write(database)
    async with database.transaction() as session:
        await conversations.remove(session, await conversations.get_conversation(session, "conv_1"))
    async with database.transaction() as session:
        assert (await session.execute(select(func.count()).select_from(ParticipantVoice))).scalar_one() == 0
