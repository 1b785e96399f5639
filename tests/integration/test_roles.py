"""The roles of deploy/postgresql/roles.sql on a real PostgreSQL: enough for the work, and nothing beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction
from sqlalchemy import make_url

from backend.config import Settings
from backend.database.migrate import migrate
from backend.services.jobs.checkpoints.database import prepare
from tests.conftest import ROOT, api, send
from tests.support.media import tone, write

ROLES = ROOT / "deploy" / "postgresql" / "roles.sql"


@pytest.fixture
def database(postgres_url: str) -> str:
    """A migrated database with the roles."""
    asyncio.run(migrate(postgres_url))
    prepare(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for _ in range(2):  # it may be run again
            connection.execute(ROLES.read_bytes())
        connection.execute("ALTER ROLE aperta PASSWORD 'a'; ALTER ROLE aperta_autoscaler PASSWORD 'b'")
    return postgres_url


def as_role(url: str, role: str, password: str) -> str:
    return make_url(url).set(username=role, password=password).render_as_string(hide_password=False)


@pytest.fixture
def autoscaler(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(as_role(database, "aperta_autoscaler", "b"), autocommit=True) as connection:
        yield connection


def test_the_autoscaler_reads_how_much_waits(autoscaler: psycopg.Connection) -> None:
    assert autoscaler.execute("SELECT waiting_audio_s()").fetchone() == (0,)


@pytest.mark.parametrize("name", ["jobs", "conversations", "segments", "voice_prints", "alembic_version"])
def test_the_autoscaler_reads_no_table(autoscaler: psycopg.Connection, name: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        autoscaler.execute(f"SELECT * FROM {name}")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM dbos.workflow_status",
        "UPDATE dbos.workflow_input SET inputs = ''",
        "INSERT INTO jobs (id) VALUES ('x')",
        "DELETE FROM jobs",
        "CREATE TABLE public.mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "ALTER FUNCTION waiting_audio_s() RENAME TO x",
        "COPY (SELECT 1) TO PROGRAM 'id'",
    ],
)
def test_the_autoscaler_changes_nothing(autoscaler: psycopg.Connection, statement: str) -> None:
    autoscaler.execute("SET default_transaction_read_only = off")  # which holds back only the careless
    with pytest.raises((InsufficientPrivilege, ReadOnlySqlTransaction)):
        autoscaler.execute(statement)


@pytest.mark.anyio
async def test_the_role_of_servers_and_workers_does_everything_that_a_recording_needs(
    settings: Settings, database: str, tmp_path: Path
) -> None:
    own = settings.model_copy(update={"database_url": as_role(database, "aperta", "a")})
    async with api(own) as (client, _):
        answer = await send(client, write(tmp_path / "a.wav", tone(2.0)))
        assert answer.status_code == 200, answer.text
        assert (await client.delete(f"/conversations/{answer.json()['conversation_id']}")).status_code == 204


@pytest.mark.parametrize("statement", ["DROP TABLE jobs", "CREATE TABLE public.mine (id int)", "TRUNCATE jobs"])
def test_the_role_of_servers_and_workers_changes_no_table(database: str, statement: str) -> None:
    with psycopg.connect(as_role(database, "aperta", "a")) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement)
