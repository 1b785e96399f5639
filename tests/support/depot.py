"""Conversations with stored objects, made without the pipeline, for tests of what happens to them later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import select

from backend.database.migrate import migrate
from backend.database.models import Conversation, Participant, SegmentRow, StoredObjectRow
from backend.database.objects import row_of
from backend.database.session import Database
from backend.domain.states.conversations import ConversationStatus
from backend.errors import ObjectMissing
from backend.observability.metrics import Metrics
from backend.services.conversations.deletion import DeletionService
from backend.services.lifecycle.drain import DrainService
from backend.services.lifecycle.metrics import BacklogMetrics
from backend.services.storage import StorageConfig, StorageService
from tests.contracts.store_contract import read

AT = datetime(2026, 1, 15, 23, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Depot:
    """Storage, rows, and the services that move and delete. `local` saves to the same folder, in any state of S3."""

    storage: StorageService
    local: StorageService
    database: Database
    drain: DrainService
    deletes: DeletionService
    metrics: Metrics

    async def record(self, data: bytes = b"sound", filename: str = "meeting.wav") -> str:
        """A completed conversation whose three objects are on the local disk; returns its id."""
        return await self.record_in(self.local, data, filename)

    async def record_in(self, storage: StorageService, data: bytes = b"sound", filename: str = "meeting.wav") -> str:
        conversation_id = f"conv_{uuid4().hex[:12]}"
        stored = [
            await storage.save_audio_file(data, conversation_id, filename, at=AT, content_type="audio/wav"),
            await storage.save_transcript(f"Speaker 1: {conversation_id}", conversation_id, at=AT),
            await storage.save_metadata({"conversation_id": conversation_id}, conversation_id, at=AT),
        ]
        participant = Participant(
            position=0, label="Speaker 1", speaking_time_s=1.0, share=1.0, word_count=1, segment_count=1
        )
        async with self.database.transaction() as session:
            session.add(
                Conversation(
                    id=conversation_id,
                    title="Secret",
                    status=ConversationStatus.COMPLETED,
                    filename=filename,
                    recording_url=stored[0].locator,
                    transcript_url=stored[1].locator,
                    transcript="Speaker 1: text",
                    created_at=AT,
                    completed_at=AT,
                    participants=[participant],
                )
            )
            await session.flush()
            segment = SegmentRow(participant=participant, position=0, start_s=0.0, end_s=1.0, text="text")
            segment.conversation_id = conversation_id
            session.add_all([segment, *(row_of(item, conversation_id, AT) for item in stored)])
        return conversation_id

    async def rows(self, conversation_id: str | None = None) -> list[StoredObjectRow]:
        query = select(StoredObjectRow).order_by(StoredObjectRow.id)
        if conversation_id:
            query = query.where(StoredObjectRow.conversation_id == conversation_id)
        async with self.database.transaction() as session:
            return list((await session.execute(query)).scalars())

    async def audio(self, conversation_id: str) -> StoredObjectRow:
        return next(row for row in await self.rows(conversation_id) if row.kind == "audio")

    async def conversation(self, conversation_id: str) -> Conversation:
        async with self.database.transaction() as session:
            found = await session.get(Conversation, conversation_id)
        assert found is not None
        return found

    async def read(self, object_id: int) -> bytes:
        """As every reader does: where the row says, and again if it has moved since."""
        locator = ""
        for _ in range(2):
            async with self.database.transaction() as session:
                row = await session.get(StoredObjectRow, object_id)
            assert row is not None and row.locator != locator
            locator = row.locator
            try:
                return await read(self.storage, locator)
            except ObjectMissing as error:
                missing = error
        raise missing


@asynccontextmanager
async def open_depot(
    config: StorageConfig,
    database_url: str,
    storage: StorageService | None = None,
    local: StorageService | None = None,
    **options: Any,
) -> AsyncIterator[Depot]:
    """
    Args:
        config: what storage is opened with.
        storage: this storage instead.
        local: this one for what is saved locally.
        options: for the drain.
    """
    local = local or StorageService(config.model_copy(update={"storage_backend": "local"}))
    storage = storage or StorageService(config)
    parts = storage.parts
    await migrate(database_url)
    database = Database(database_url)
    metrics = Metrics()
    async with storage, local:
        drain = DrainService(storage, parts.mover, database, metrics, **options)
        metrics.register_asking(BacklogMetrics(drain).ask)
        deletes = DeletionService(storage, parts.stores, parts.accepted, database)
        yield Depot(storage, local, database, drain, deletes, metrics)
    await database.close()


async def until(done: Callable[[], Awaitable[bool]], limit_s: float = 10) -> None:
    """Ask until it is done."""
    deadline = time.monotonic() + limit_s
    while not await done():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.05)


def files_in(folder: Path) -> list[str]:
    """Every object file below a folder, relative and sorted."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not path.parts[0].startswith("."))


def keys_in(client: Any, bucket: str, part: str = "") -> list[str]:
    """Every key of a bucket that has this in it, sorted."""
    listed = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return sorted(item["Key"] for page in listed for item in page.get("Contents", ()) if part in item["Key"])
