"""PostgreSQL behind PgBouncer: everything a process asks of the database passes through the pooler."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import text

from backend.config import Settings
from backend.database.migrate import migrate
from backend.database.session import Database, open_sync_engine, sync_url
from backend.services.jobs.durable.database import prepare
from tests.conftest import api, send
from tests.support.media import tone, write
from tests.support.pgbouncer import pgbouncer

pytestmark = pytest.mark.anyio

MODES: tuple[Literal["session", "transaction"], ...] = ("session", "transaction")


@pytest.mark.parametrize("mode", MODES)
async def test_the_database_is_migrated_and_jobs_run_through_a_pooler(
    mode: Literal["session", "transaction"], postgres_url: str, settings: Settings, tmp_path: Path
) -> None:
    sound = write(tmp_path / "tone.wav", tone(1.0))
    with pgbouncer(postgres_url, mode) as url:
        await prepared(url)
        async with api(settings.model_copy(update={"database_url": url})) as (client, services):
            await services.runner.start()
            answers = await asyncio.gather(*(send(client, sound) for _ in range(6)))
            assert [answer.status_code for answer in answers] == [200] * 6
            assert (await client.get("/conversations")).status_code == 200


async def test_clients_outnumber_the_connections_that_are_pooled_by_transaction(
    postgres_url: str, settings: Settings, tmp_path: Path
) -> None:
    """With fewer connections than clients, no transaction gets the connection of the one before it."""
    sound = write(tmp_path / "tone.wav", tone(1.0))
    with pgbouncer(postgres_url, "transaction", connections=3) as url:
        await prepared(url)
        await asyncio.to_thread(prepare, url)  # a second time, over connections that were used
        async with api(settings.model_copy(update={"database_url": url})) as (client, services):
            await services.runner.start()
            answers = await asyncio.gather(*(send(client, sound) for _ in range(6)))
            reads = await asyncio.gather(*(client.get("/conversations") for _ in range(20)))
    assert {answer.status_code for answer in (*answers, *reads)} == {200}


async def names(url: str) -> int:
    """How many statements have names on the connection of a query that has run often."""
    database = Database(url)
    for _ in range(10):
        async with database.transaction() as session:
            await session.execute(text("SELECT 1"))
    async with database.transaction() as session:
        found = await session.execute(text("SELECT count(*) FROM pg_prepared_statements"))
    await database.close()
    return int(found.scalar_one())


async def test_statements_have_names_only_where_no_pooler_is_between(postgres_url: str) -> None:
    assert await names(postgres_url) > 0
    for mode in MODES:
        with pgbouncer(postgres_url, mode) as url:
            assert await names(url) == 0


@pytest.mark.parametrize("pooled", [False, True])
def test_psycopg_gives_names_only_where_no_pooler_is_between(postgres_url: str, pooled: bool) -> None:
    with pgbouncer(postgres_url, "transaction") if pooled else nullcontext(postgres_url) as url:
        engine = open_sync_engine(sync_url(url))
        with engine.connect() as connection:
            assert (connection.connection.driver_connection.prepare_threshold is None) == pooled
        engine.dispose()


async def prepared(url: str) -> None:
    await migrate(url)
    await asyncio.to_thread(prepare, url)
