"""One DATABASE_URL for drivers that call things differently."""

from __future__ import annotations

import pytest

from backend.database.session import async_url, durable_url, sync_url

HOST = "aperta:pass%40word@db.example.com:5432/aperta"


@pytest.mark.parametrize("given", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_spelling_of_postgresql_leads_to_both_drivers(given: str) -> None:
    assert async_url(f"{given}://{HOST}") == f"postgresql+asyncpg://{HOST}"
    assert sync_url(f"{given}://{HOST}") == f"postgresql+psycopg://{HOST}"


@pytest.mark.parametrize("given", ["sslmode", "ssl"])
def test_encryption_is_asked_for_in_each_drivers_words(given: str) -> None:
    url = f"postgresql://{HOST}?{given}=verify-full"
    assert async_url(url) == f"postgresql+asyncpg://{HOST}?ssl=verify-full"
    assert "sslmode=verify-full" in sync_url(url) and "ssl=" not in sync_url(url)
    assert "sslmode=verify-full" in durable_url(url)


def test_options_of_ones_own_are_kept() -> None:
    assert "options=-csearch_path%3Daperta" in sync_url(f"postgresql://{HOST}?options=-csearch_path%3Daperta")


def test_the_durable_engine_has_a_file_beside_the_rows() -> None:
    assert durable_url("sqlite+aiosqlite:////data/aperta.db") == "sqlite:////data/aperta.jobs.db"
    assert durable_url("sqlite:///rows") == "sqlite:///rows.jobs.db"
