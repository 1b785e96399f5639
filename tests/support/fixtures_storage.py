"""Fixtures of the storage tests: a real S3 server, a bucket, a proxy with faults, ready-made configurations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from hypothesis import settings

from backend.services.storage import StorageConfig
from tests.support.servers import FaultProxy, S3Server, running_swift, swift_venv

pytest.register_assert_rewrite("tests.contracts.store_contract")
settings.register_profile("aperta", deadline=None)  # a busy machine is no failure
settings.load_profile("aperta")

StorageConfigMaker = Callable[..., StorageConfig]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_foreign_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's machine knows about AWS must not change a test."""
    for name in [n for n in os.environ if n.startswith(("AWS_", "S3_", "STORAGE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    venv = swift_venv()
    if venv is None:
        pytest.skip("OpenStack Swift is not installed: `make test-servers` does it.")
    with running_swift(venv, tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(swift: S3Server) -> S3Server:
    """The store that S3 is tested with; another suite may put another one here."""
    return swift


@pytest.fixture(scope="session")
def s3_reader(s3_server: S3Server, raw_s3: Any, bucket: str) -> S3Server:
    """The same store for somebody who may read and list the bucket, and not write to it."""
    raw_s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    return replace(s3_server, access_key="test:reader", secret_key="reading")


@pytest.fixture(scope="session")
def raw_s3(s3_server: S3Server) -> Iterator[Any]:
    """A plain client to the server: the back door that the store under test does not know of."""
    client = s3_client(s3_server)
    yield client
    client.close()


@pytest.fixture(scope="session")
def bucket(raw_s3: Any) -> str:
    return new_bucket(raw_s3)


def new_bucket(raw_s3: Any) -> str:
    name = f"aperta-{uuid4().hex[:8]}"
    raw_s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def faulty(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server) as proxy:
        yield proxy


@pytest.fixture
def upload_dir(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def local_config(upload_dir: Path) -> StorageConfig:
    return StorageConfig(_env_file=None, upload_dir=str(upload_dir))


@pytest.fixture(scope="session")
def s3_config(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> StorageConfigMaker:
    return config_maker(bucket, tmp_path_factory)


def config_maker(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> StorageConfigMaker:
    """Return a maker of configurations: for a server, with any field changed."""

    def make(server: S3Server, **changes: Any) -> StorageConfig:
        defaults = s3_settings(server, bucket, tmp_path_factory.mktemp("uploads"))
        return StorageConfig(_env_file=None, **(defaults | changes))

    return make


def s3_settings(server: S3Server, bucket: str, upload_dir: Path) -> dict[str, Any]:
    return {
        "upload_dir": str(upload_dir),
        "s3_bucket_name": bucket,
        "s3_endpoint_url": server.url,
        "s3_region": "us-east-1",
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
        "s3_server_side_encryption": "none",
        "s3_connect_timeout_s": 0.5,
        "s3_read_timeout_s": 5,
    }


def s3_client(server: S3Server) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )
