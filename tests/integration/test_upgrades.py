"""Databases of every older schema, on SQLite and PostgreSQL: migrated with their rows, then served and worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from backend.config import Settings
from backend.database.migrate import migrate
from backend.database.models import Base
from backend.database.session import Database
from tests.conftest import ROOT, api
from tests.support.media import tone, write
from tests.support.old_databases import (
    PARTIAL,
    REVISIONS,
    VOICE,
    fill,
    read,
    rows_of,
    stored_audio,
    upgrade_to,
    write_files,
)

pytestmark = pytest.mark.anyio

T = TypeVar("T")
FIRST_FORM = "0002, first form"
SECONDS = 60
HAVE_JOBS = [revision for revision in REVISIONS if revision >= "0003"]


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings of a service whose database is still empty."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


async def run(settings: Settings, act: Callable[[Connection], T]) -> T:
    database = Database(settings.database_url)
    try:
        async with database.engine.connect() as connection:
            return await connection.run_sync(act)
    finally:
        await database.close()


async def leave_behind(old: Settings, recording: Path, revision: str) -> dict[str, list[dict[str, object]]]:
    """What an older version had when it was stopped for the last time; returns the rows."""
    folder = Path(old.storage.upload_dir)
    write_files(folder, recording)

    def make(connection: Connection) -> dict[str, list[dict[str, object]]]:
        upgrade_to(connection, "0001" if revision == FIRST_FORM else revision)
        if revision == FIRST_FORM:
            _run_file(connection, ROOT / "tests" / "data" / f"0002_first_form.{connection.dialect.name}.sql")
        fill(connection, rows_of(folder, recording))
        return read(connection)

    return await run(old, make)


def _run_file(connection: Connection, script: Path) -> None:
    for statement in script.read_text().split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
    connection.commit()


@asynccontextmanager
async def upgraded(old: Settings, recording: Path, revision: str) -> AsyncIterator[httpx.AsyncClient]:
    """The service on a migrated database, with its workers at work."""
    await leave_behind(old, recording, revision)
    await migrate(old.database_url)
    async with api(old) as (client, services):
        await services.runner.start()
        yield client


async def reach(client: httpx.AsyncClient, job_id: str, status: str) -> None:
    """Wait until a job has a status."""
    async with asyncio.timeout(SECONDS):
        while (await client.get(f"/jobs/{job_id}")).json()["status"] != status:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("revision", [*REVISIONS, FIRST_FORM])
async def test_an_upgrade_gives_the_schema_of_the_models(old: Settings, recording: Path, revision: str) -> None:
    await leave_behind(old, recording, revision)

    assert await migrate(old.database_url) is (revision != REVISIONS[-1])

    def differences(connection: Connection) -> list[object]:
        return compare_metadata(MigrationContext.configure(connection), Base.metadata)

    assert await run(old, differences) == []


@pytest.mark.parametrize("revision", REVISIONS)
async def test_an_upgrade_keeps_every_value(old: Settings, recording: Path, revision: str) -> None:
    before = await leave_behind(old, recording, revision)
    await migrate(old.database_url)

    assert await run(old, lambda connection: read(connection, like=before)) == before


async def test_every_table_of_the_models_has_rows_before_the_upgrade(old: Settings, recording: Path) -> None:
    before = await leave_behind(old, recording, REVISIONS[-1])

    assert set(before) == set(Base.metadata.tables) and all(before.values())


async def test_voices_move_out_of_the_rows_of_participants(old: Settings, recording: Path) -> None:
    before = await leave_behind(old, recording, FIRST_FORM)
    await migrate(old.database_url)
    after = await run(old, read)

    assert after["participant_voices"] == [{"participant_id": 1, "person_id": "person_anna", "embedding": VOICE}]
    for row in before["participants"]:
        del row["voice"], row["person_id"]
    assert {table: after[table] for table in ("participants", "segments")} == {
        table: before[table] for table in ("participants", "segments")
    }


@pytest.mark.parametrize("revision", [*REVISIONS, FIRST_FORM])
async def test_an_old_conversation_is_served(old: Settings, recording: Path, revision: str) -> None:
    async with upgraded(old, recording, revision) as client:
        detail = (await client.get("/conversations/conv_done")).json()

    assert [part["label"] for part in detail["participants"]] == ["Speaker 1", "Speaker 2"]
    assert [segment["text"] for segment in detail["transcript"]["segments"]] == ["Good morning.", "Hello."]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_an_old_recording_is_served(old: Settings, recording: Path, revision: str) -> None:
    async with upgraded(old, recording, revision) as client:
        answer = await client.get("/conversations/conv_done/audio")

    assert answer.content == recording.read_bytes() == stored_audio(Path(old.storage.upload_dir)).read_bytes()


@pytest.mark.parametrize("revision", HAVE_JOBS)
async def test_jobs_that_waited_or_ran_are_finished(old: Settings, recording: Path, revision: str) -> None:
    async with upgraded(old, recording, revision) as client:
        for name in ("waiting", "running"):
            await reach(client, f"job_{name}", "completed")
            answer = await client.get(f"/conversations/conv_{name}/audio")
            assert answer.content == recording.read_bytes()


@pytest.mark.parametrize("revision", HAVE_JOBS)
async def test_a_job_that_failed_can_be_tried_again(old: Settings, recording: Path, revision: str) -> None:
    async with upgraded(old, recording, revision) as client:
        await client.post("/jobs/job_failed/retry")
        await reach(client, "job_failed", "completed")


@pytest.mark.parametrize("revision", HAVE_JOBS)
async def test_an_upload_goes_on_where_it_was(old: Settings, recording: Path, revision: str) -> None:
    async with upgraded(old, recording, revision) as client:
        answer = await client.head("/uploads/upload_1", headers={"Tus-Resumable": "1.0.0"})

    assert answer.headers["upload-offset"] == str(len(PARTIAL))
