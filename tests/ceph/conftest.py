"""The same fixtures as elsewhere, with Ceph behind them instead of Swift."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from backend.services.storage import StorageConfig
from tests.support.ceph_server import PACKAGES, Ceph, allow_reading, missing_programs, running_ceph
from tests.support.fixtures_storage import StorageConfigMaker, config_maker, new_bucket, s3_client
from tests.support.servers import S3Server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    if missing := missing_programs():
        why = f"{', '.join(missing)} not installed. On Debian: apt-get install {PACKAGES}"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    with running_ceph(tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture(scope="session")
def s3_server(ceph: Ceph) -> S3Server:
    return ceph.owner


@pytest.fixture(scope="session")
def raw_s3(s3_server: S3Server) -> Iterator[Any]:
    client = s3_client(s3_server)
    yield client
    client.close()


@pytest.fixture(scope="session")
def bucket(raw_s3: Any) -> str:
    return new_bucket(raw_s3)


@pytest.fixture(scope="session")
def s3_config(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> StorageConfigMaker:
    return config_maker(bucket, tmp_path_factory)


@pytest.fixture(scope="session")
def s3_reader(ceph: Ceph, raw_s3: Any, bucket: str) -> S3Server:
    allow_reading(raw_s3, bucket, ceph.stranger.access_key)
    return ceph.stranger


@pytest.fixture
def trusted(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK, and the standard library as a client of links, trust Ceph's certificate."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ceph.certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(ceph.certificate))


@pytest.fixture
def tls_config(ceph: Ceph, s3_config: StorageConfigMaker, trusted: None) -> StorageConfig:
    return s3_config(ceph.tls)
