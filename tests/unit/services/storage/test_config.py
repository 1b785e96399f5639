"""What StorageConfig reads, and what it takes for unset."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from backend.services.storage import StorageConfig


def test_nothing_needs_to_be_set() -> None:
    config = StorageConfig(_env_file=None)
    assert (config.upload_dir, config.storage_backend, config.fallback) == ("./uploads", "auto", True)
    assert (config.s3_bucket_name, config.s3_server_side_encryption) == (None, "AES256")


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("S3_BUCKET_NAME=from-file\nS3_REGION=eu-west-1\nOTHER=1\nFALLBACK=off\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S3_BUCKET_NAME", "from-environment")
    config = StorageConfig()
    assert (config.s3_bucket_name, config.s3_region, config.fallback) == ("from-environment", "eu-west-1", False)


@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_is_unset(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    for name in ("S3_BUCKET_NAME", "S3_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY", "STORAGE_BACKEND", "S3_MAX_CONCURRENCY"):
        monkeypatch.setenv(name, empty)
    config = StorageConfig(_env_file=None, upload_dir=empty)
    assert config == StorageConfig(_env_file=None)
    assert config.s3_bucket_name is None and config.upload_dir == "./uploads"


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    assert "hunter2" not in repr(StorageConfig(_env_file=None))


def test_a_value_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValidationError, match="storage_backend"):
        StorageConfig(_env_file=None, storage_backend="tape")


@pytest.mark.parametrize("rate", [-1, 1, 65_535])
def test_a_drain_that_no_store_would_wait_for_is_refused(rate: int) -> None:
    with pytest.raises(ValidationError, match="drain_max_bytes_per_s"):
        StorageConfig(_env_file=None, drain_max_bytes_per_s=rate)
    assert StorageConfig(_env_file=None, drain_max_bytes_per_s=65_536).drain_max_bytes_per_s == 65_536
