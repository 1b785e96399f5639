"""The contract of all stores, on Ceph: plain, over TLS, through the whole service, and against a dict."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from backend.services.storage import ObjectStore, StorageConfig, StorageService
from backend.services.storage.stores.s3.connection import S3Connection
from backend.services.storage.stores.s3.store import S3Store
from tests.contracts.store_contract import Bench, StoreContract, store_bench
from tests.contracts.store_machine import StoreMachine
from tests.contracts.test_stores import bucket_back_door, service_bench
from tests.support.fixtures_storage import StorageConfigMaker
from tests.support.servers import S3Server

pytestmark = pytest.mark.anyio


class TestS3StoreOnCeph(StoreContract):
    @pytest.fixture
    async def bench(
        self, s3_server: S3Server, bucket: str, raw_s3: Any, s3_config: StorageConfigMaker, tmp_path: Path
    ) -> AsyncIterator[Bench]:
        store = S3Store(S3Connection(s3_config(s3_server)))
        yield store_bench(store, tmp_path, *bucket_back_door(raw_s3, bucket))
        await store.close()


class TestS3StoreOnCephOverTls(StoreContract):
    @pytest.fixture
    async def bench(self, tls_config: StorageConfig, bucket: str, raw_s3: Any, tmp_path: Path) -> AsyncIterator[Bench]:
        store = S3Store(S3Connection(tls_config))
        yield store_bench(store, tmp_path, *bucket_back_door(raw_s3, bucket))
        await store.close()


class TestServiceOnCeph(StoreContract):
    @pytest.fixture
    async def bench(
        self, s3_server: S3Server, bucket: str, raw_s3: Any, s3_config: StorageConfigMaker
    ) -> AsyncIterator[Bench]:
        async with StorageService(s3_config(s3_server)) as service:
            yield service_bench(service, bucket_back_door(raw_s3, bucket))


def test_s3_store_on_ceph_is_a_dict(s3_server: S3Server, s3_config: StorageConfigMaker) -> None:
    class CephMachine(StoreMachine):
        def open_store(self, folder: Path) -> ObjectStore:
            return S3Store(S3Connection(s3_config(s3_server)))

    few = settings(max_examples=6, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(CephMachine, settings=few)
