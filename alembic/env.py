"""Alembic's entry. `backend.database.migrate` passes a connection; the alembic command line opens its own."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection

from backend.config import Settings
from backend.database.models import Base
from backend.database.session import async_url, open_engine


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_alone() -> None:
    engine = open_engine(async_url(Settings().database_url))
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    asyncio.run(run_alone())
