"""Settings that cannot work are refused with a sentence that names them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from backend.config import Settings, describe_invalid_settings, describe_misspelt_settings
from backend.errors import InvalidInput


def refusal(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "secret" not in str(caught.value)
    return describe_invalid_settings(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rows of mine", "no database URL"),
        ("postgresql://ada:secret@localhost:port/rows", "no database URL"),
        ("mysql://ada:secret@localhost/rows", "mysql is not supported"),
        ("postgresql+psycopg://localhost/rows", "postgresql+psycopg is not supported"),
        ("sqlite+pysqlite:///rows.db", "sqlite+pysqlite is not supported"),
        ("sqlite://", "memory"),
        ("sqlite+aiosqlite:///:memory:", "memory"),
        ("sqlite:///file:rows?mode=memory&uri=true", "memory"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    sentence = refusal(monkeypatch, "DATABASE_URL", url)
    assert sentence.startswith("DATABASE_URL: ") and says in sentence and "secret" not in sentence


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///./rows.db",
        "sqlite+aiosqlite:////data/rows.db",
        "postgres://ada:secret@localhost/rows",
        "postgresql://localhost/rows",
        "postgresql+asyncpg://localhost/rows?host=/run/postgresql",
    ],
)
def test_a_database_that_can_be_used_stays_as_written(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert Settings().database_url == url


@pytest.mark.parametrize("name", ["MAX_AUDIO_SECONDS", "UPLOAD_STALL_TIMEOUT_S"])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_number_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert refusal(monkeypatch, name, value) == f"{name}: Input should be a finite number"


def test_an_env_file_that_is_no_text_is_refused() -> None:
    Path(".env").write_bytes(b"LOG_LEVEL=\xff\xfe")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        Settings()


def test_a_setting_of_s3_that_is_nearly_spelt_right_is_told() -> None:
    given = {"S3_BUCKET": "talks", "S3_REGION": "eu-north-1", "S3_SERVICE_HOST": "10.0.0.1", "s3_endpoint": ""}
    assert describe_misspelt_settings(given) == [
        "S3_BUCKET is no setting of Aperta's and does nothing. Did you mean S3_BUCKET_NAME?"
    ]
