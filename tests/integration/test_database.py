"""The same rows on SQLite and on a real PostgreSQL: migrations, transactions, a whole recording."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, QueuePool, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from backend.config import Settings
from backend.database.migrate import migrate
from backend.database.models import Base, Conversation
from backend.database.session import Database, async_url
from backend.errors import DatabaseUnavailable
from tests.conftest import ROOT, api
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/new/rows.db"
    server: str = request.getfixturevalue("postgres_url")
    return server


async def test_migrations_make_exactly_the_models(database_url: str) -> None:
    assert await migrate(database_url) is True
    database = Database(database_url)

    def differences(connection: Connection) -> list[object]:
        return compare_metadata(MigrationContext.configure(connection), Base.metadata)

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_migrating_twice_changes_nothing(database_url: str) -> None:
    await migrate(database_url)
    assert await migrate(database_url) is False


async def test_processes_that_start_at_once_migrate_once(database_url: str) -> None:
    command = (
        f"import asyncio; from backend.database.migrate import migrate; print(asyncio.run(migrate({database_url!r})))"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    outputs = [await process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert sorted(out.decode().strip() for out, _ in outputs) == ["False", "False", "False", "True"]


async def test_a_whole_recording_is_written_and_deleted(database_url: str, settings: Settings, tmp_path: Path) -> None:
    await migrate(database_url)
    recording = write(tmp_path / "meeting.wav", tone(2.0))
    async with api(settings.model_copy(update={"database_url": database_url})) as (client, services):
        answer = await client.post("/audio/process", files={"file": ("m" * 300 + ".wav", recording.read_bytes())})
        assert answer.status_code == 200, answer.text
        async with services.database.transaction() as session:
            conversations = await session.execute(select(Conversation).filter(Conversation.status == "completed"))
            assert [row.recording_url for row in conversations.scalars().all()] == [answer.json()["audio_file_path"]]
        conversation = answer.json()["conversation_id"]
        detail = (await client.get(f"/conversations/{conversation}")).json()
        assert detail["created_at"].endswith("Z") and len(detail["participants"]) == 2
        assert (await client.delete(f"/conversations/{conversation}")).status_code == 204
        async with services.database.transaction() as session:
            for table in ("conversations", "participants", "segments", "stored_objects"):
                assert (await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 0


async def test_a_database_that_does_not_answer_is_found_out_at_start(settings: Settings) -> None:
    unreachable = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    with pytest.raises(DatabaseUnavailable, match="DATABASE_URL"):
        async with api(unreachable):
            pass


async def test_a_database_without_tables_is_found_out_at_start(settings: Settings, postgres_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="aperta migrate"):
        async with api(settings.model_copy(update={"database_url": postgres_url})):
            pass


async def test_a_database_that_goes_away_is_a_503(settings: Settings) -> None:
    async with api(settings) as (client, services):
        async with services.database.transaction() as session:
            await session.execute(text("DROP TABLE segments"))
            await session.execute(text("DROP TABLE stored_objects"))
            await session.execute(text("DROP TABLE participants"))
            await session.execute(text("DROP TABLE conversations"))
        answer = await client.get("/conversations")
        assert answer.status_code == 503 and "DATABASE_URL" in answer.json()["detail"]
        assert answer.headers["retry-after"]


async def test_a_broken_transaction_leaves_nothing(settings: Settings) -> None:
    await migrate(settings.database_url)
    database = Database(settings.database_url)
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO nowhere VALUES (1)"))
    await database.close()


async def test_what_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are notes and no database at all\n" * 100)
    (tmp_path / "folder").mkdir()
    for name in ("notes.txt", "folder", "notes.txt/rows.db"):
        with pytest.raises(DatabaseUnavailable, match="DATABASE_URL"):
            await migrate(f"sqlite:///{tmp_path}/{name}")


async def test_a_postgresql_without_that_database_is_a_sentence(postgres_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        await migrate(make_url(postgres_url).set(database="nowhere").render_as_string(hide_password=False))


async def test_a_file_that_is_damaged_while_it_is_used_is_a_503(settings: Settings, tmp_path: Path) -> None:
    async with api(settings) as (client, services):
        async with services.database.transaction() as session:
            await session.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        pool = services.database.engine.sync_engine.pool
        assert isinstance(pool, QueuePool)
        while pool.checkedout():  # what is in use now would not be closed
            await asyncio.sleep(0.01)
        await services.database.engine.dispose()
        rows = tmp_path / "rows.db"
        page_bytes = 4096
        rows.write_bytes(rows.read_bytes()[:page_bytes] + b"\xff" * (rows.stat().st_size - page_bytes))
        answer = await client.get("/conversations")
    assert answer.status_code == 503 and "malformed" in answer.json()["detail"]


async def test_an_exhausted_pool_is_unavailable(database_url: str) -> None:
    database = Database(database_url)
    pool = database.engine.sync_engine.pool
    assert isinstance(pool, QueuePool)
    pool._timeout = 0.01
    async with AsyncExitStack() as held:
        for _ in range(pool.size() + pool._max_overflow):
            await held.enter_async_context(database.engine.connect())
        with pytest.raises(DatabaseUnavailable, match="limit"):
            async with database.transaction() as session:
                await session.execute(text("SELECT 1"))
    await database.close()


async def test_a_value_that_breaks_a_rule_is_no_outage(database_url: str) -> None:
    await migrate(database_url)
    database = Database(database_url)
    double = "INSERT INTO people (id, name, created_at) VALUES ('p', 'Ada', '2026-01-01 00:00:00')"
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            for _ in range(2):
                await session.execute(text(double))
    await database.close()


async def test_a_wrong_statement_or_value_is_no_outage(postgres_url: str) -> None:
    database = Database(postgres_url)
    for statement in ("SELECT * FROM nowhere", "SELECT 1 / 0", "SELECT CAST('x' AS integer)"):
        with pytest.raises(DBAPIError):
            async with database.transaction() as session:
                await session.execute(text(statement))
    await database.close()


def test_plain_addresses_get_their_asynchronous_driver() -> None:
    assert async_url("sqlite:///x.db") == "sqlite+aiosqlite:///x.db"
    assert async_url("postgres://u:p@h/d") == "postgresql+asyncpg://u:p@h/d"
    assert async_url("postgresql+asyncpg://u:p@h/d") == "postgresql+asyncpg://u:p@h/d"
