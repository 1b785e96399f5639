"""Over TLS: the SDK's own checksums, which Ceph refuses, certificates, and encryption that is accepted and not done."""

from __future__ import annotations

import logging

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from backend.errors import StorageMisconfigured
from backend.services.storage import StorageConfig, StorageService
from backend.services.storage.stores.s3.probe import probe
from tests.contracts.store_contract import conversation, read
from tests.support.ceph_server import Ceph
from tests.support.fixtures_storage import StorageConfigMaker

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * (20 * 4096)  # 20 MiB: in parts


def test_the_sdk_as_it_comes_cannot_save_over_tls(ceph: Ceph, bucket: str, trusted: None) -> None:
    """What the next test would fail with: the trap is there."""
    client = boto3.client(
        "s3",
        endpoint_url=ceph.tls.url,
        region_name="us-east-1",
        aws_access_key_id=ceph.tls.access_key,
        aws_secret_access_key=ceph.tls.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    with pytest.raises(ClientError, match="MissingContentLength") as refused:
        client.put_object(Bucket=bucket, Key="as-it-comes", Body=b"data")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 411
    client.close()


@pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "in parts"])
async def test_aperta_saves_over_tls(tls_config: StorageConfig, data: bytes) -> None:
    async with StorageService(tls_config) as storage:
        stored = await storage.save_audio_file(data, conversation(), "m.wav")
        assert (stored.store, stored.warnings) == ("s3", ())
        assert await read(storage, stored.locator) == data


async def test_a_certificate_that_nobody_vouches_for_is_named(ceph: Ceph, s3_config: StorageConfigMaker) -> None:
    with pytest.raises(StorageMisconfigured, match="AWS_CA_BUNDLE"):
        await StorageService(s3_config(ceph.tls, fallback=False)).start()


async def test_encryption_that_is_accepted_and_not_done_is_a_warning(
    ceph: Ceph, s3_config: StorageConfigMaker, trusted: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with StorageService(s3_config(ceph.tls, s3_server_side_encryption="AES256")) as storage:
        with caplog.at_level(logging.WARNING):
            stored = await storage.save_audio_file(b"data", conversation(), "m.wav")
    assert stored.store == "s3"
    assert "did not confirm the server-side encryption AES256 (it says nothing)" in stored.warnings[0]
    assert stored.warnings[0] in caplog.text


async def test_encryption_on_a_plain_connection_is_refused_and_the_switch_named(
    ceph: Ceph, s3_config: StorageConfigMaker
) -> None:
    with pytest.raises(StorageMisconfigured, match="S3_SERVER_SIDE_ENCRYPTION=none"):
        await StorageService(s3_config(ceph.owner, s3_server_side_encryption="AES256", fallback=False)).start()


def test_the_probe_sees_all_of_that(tls_config: StorageConfig) -> None:
    report = probe(tls_config)
    verdicts = {finding.name: finding.verdict for finding in report.findings}
    assert report.usable
    assert (verdicts["checksums when_required"], verdicts["checksums when_supported"]) == ("yes", "no")
    assert (verdicts["encryption AES256"], verdicts["conditional PUT"]) == ("no", "yes")
