"""Conversations as processing leaves them, objects and rows, without an engine; and a database's content to compare."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from backend.database import transcripts
from backend.database.models import Base, Conversation
from backend.database.objects import row_of
from backend.database.session import Database
from backend.domain.attribution import speaker_stats
from backend.domain.manifest import manifest_of
from backend.domain.rendering.formats import to_text
from backend.domain.states.conversations import ConversationStatus
from backend.domain.transcript import Segment, Transcript, Word
from backend.domain.voices import SpeakerIdentity, named_speakers, show_labels
from backend.services.storage import StorageService, StoredObject

TABLES = ("conversations", "participants", "segments", "stored_objects")


@dataclass(frozen=True)
class Kept:
    """A conversation and where its objects are."""

    id: str
    audio: StoredObject
    transcript: StoredObject | None
    manifest: StoredObject | None


async def open_database(path: Path) -> Database:
    """An empty database with all tables."""
    database = Database(f"sqlite+aiosqlite:///{path}")
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return database


async def keep_conversation(
    storage: StorageService,
    database: Database,
    *,
    sound: bytes = b"RIFF and so on",
    filename: str = "meeting.wav",
    title: str | None = None,
    with_manifest: bool = True,
) -> Kept:
    """Store a conversation of two speakers, one of them known by name."""
    conversation = _conversation(filename, title)
    said = Transcript(
        (
            Segment(
                0.1, 0.9, "Good morning.", (Word(" Good", 0.1, 0.4, 0.9), Word(" morning.", 0.4, 0.9)), "Ada Byron"
            ),
            Segment(1.2, 1.8, "Hello, Ada.", (), "Speaker 2"),
        ),
        "en",
    )
    stats = speaker_stats(said, None, {})
    identities = {"Ada Byron": SpeakerIdentity("Speaker 1", (1.0, 0.0), "person_ada")}
    at = conversation.created_at
    audio = await storage.save_audio_file(sound, conversation.id, filename, at=at)
    transcript = await storage.save_transcript(to_text(said), conversation.id, at=at)
    objects = [audio, transcript]
    conversation.completed_at = datetime.now(UTC)
    conversation.recording_url, conversation.transcript_url = audio.locator, transcript.locator
    conversation.duration_s, conversation.engines = 2.0, {"transcription": "scripted", "diarization": "scripted"}
    conversation.warnings = ["2 damaged pieces of the recording were skipped."]
    manifest = None
    if with_manifest:
        document = manifest_of(
            conversation,
            objects,
            status="completed",
            completed_at=conversation.completed_at,
            transcript=said,
            stats=stats,
            identities=identities,
            duration_s=2.0,
            engines=conversation.engines,
            media={"format": "wav", "codec": "pcm_s16le", "sample_rate_hz": 16_000, "channels": 1},
            warnings=conversation.warnings,
        )
        manifest = await storage.save_metadata(document, conversation.id, filename=filename, at=at)
        objects.append(manifest)
    async with database.transaction() as session:
        speakers = named_speakers(stats, identities)
        await transcripts.write(session, conversation, show_labels(said, speakers), speakers, identities.values())
        session.add_all(row_of(item, conversation.id, conversation.completed_at) for item in objects)
    return Kept(conversation.id, audio, transcript, manifest)


async def keep_failed(storage: StorageService, database: Database) -> Kept:
    """Store a conversation that an engine broke on."""
    conversation = _conversation("broken.wav", "Broken")
    conversation.status, conversation.error = ConversationStatus.FAILED, "The engine broke."
    conversation.completed_at = at = datetime.now(UTC)
    audio = await storage.save_audio_file(b"sound", conversation.id, "broken.wav", at=conversation.created_at)
    conversation.recording_url = audio.locator
    document = manifest_of(conversation, [audio], status="failed", completed_at=at, error=conversation.error)
    manifest = await storage.save_metadata(document, conversation.id, filename="broken.wav", at=conversation.created_at)
    async with database.transaction() as session:
        session.add_all([conversation, *(row_of(item, conversation.id, at) for item in (audio, manifest))])
    return Kept(conversation.id, audio, None, manifest)


async def rows_of(database: Database, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of some tables, default those that a manifest holds.

    Left out: numbers that the database gave, and the stores' own versions of objects, which no manifest holds.
    """
    found = {}
    async with database.transaction() as session:
        for name in tables or TABLES:
            table = Base.metadata.tables[name]
            columns = [column for column in table.columns if column.name not in ("id", "participant_id", "version")]
            if name == "conversations":
                columns.append(table.c.id)
            rows = (await session.execute(sa.select(*columns))).all()
            found[name] = sorted((tuple(row) for row in rows), key=repr)
    return found


async def change(database: Database, statement: Any) -> None:
    """Run a statement behind everybody's back."""
    async with database.transaction() as session:
        await session.execute(statement)


def _conversation(filename: str, title: str | None) -> Conversation:
    return Conversation(
        id=f"conv_{uuid4().hex}",
        title=title,
        status=ConversationStatus.COMPLETED,
        filename=filename,
        created_at=datetime.now(UTC),
    )
