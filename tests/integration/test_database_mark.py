"""What tells databases apart that share a folder of recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from backend.database.session import Database

pytestmark = pytest.mark.anyio


async def mark_of(url: str) -> str:
    database = Database(url)
    try:
        return await database.mark()
    finally:
        await database.close()


async def test_each_sqlite_file_has_its_own(tmp_path: Path) -> None:
    urls = [f"sqlite+aiosqlite:///{tmp_path}/{name}.db" for name in ("one", "two")]
    one, two = [await mark_of(url) for url in urls]
    assert one != two and len(one) == 8 and await mark_of(urls[0]) == one


async def test_a_file_that_is_made_anew_under_the_same_name_is_another_one(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/rows.db"
    before = await mark_of(url)
    (tmp_path / "rows.db").rename(tmp_path / "old.db")
    assert await mark_of(url) != before


async def test_postgresql_is_the_same_under_every_address(postgres_url: str) -> None:
    url = make_url(postgres_url)
    named = url.set(username="postgres", drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    assert await mark_of(postgres_url) == await mark_of(named)
