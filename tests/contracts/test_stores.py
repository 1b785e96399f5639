"""Every store, and the whole service with a healthy and with a dead primary store, under one contract."""

from __future__ import annotations

import urllib.parse
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from backend.concurrency.lanes import ThreadLane
from backend.errors import InvalidInput, StorageUnavailable
from backend.services.storage import ObjectStore, StorageConfig, StorageService, StoredObject, Stores
from backend.services.storage.keys import PREFIXES
from backend.services.storage.placement.parts import open_parts
from backend.services.storage.spool.temporary import Spool
from backend.services.storage.stores.local.store import LocalStore
from backend.services.storage.stores.memory import MemoryStore
from backend.services.storage.stores.s3.connection import S3Connection
from backend.services.storage.stores.s3.store import S3Store
from backend.services.storage.stores.wrapper import EncodedStore, StoreWrapper
from backend.services.storage.values import NewObject
from tests.contracts.store_contract import AT, Bench, StoreContract, UpkeepContract, spooled, store_bench
from tests.contracts.store_machine import StoreMachine
from tests.support.codecs import Salted, salted, unsalted
from tests.support.fixtures_storage import s3_settings
from tests.support.servers import S3Server, free_port

pytestmark = pytest.mark.anyio

BackDoor = tuple[Callable[[str], bytes | None], Callable[[str, bytes], str]]


def memory_back_door(store: MemoryStore) -> BackDoor:
    def plant(key: str, data: bytes) -> str:
        store.objects[store.locator("audio", key)] = data
        return store.locator("audio", key)

    return store.objects.get, plant


def file_back_door(upload_dir: Path) -> BackDoor:
    def peek(locator: str) -> bytes | None:
        path = Path(locator)
        return path.read_bytes() if path.exists() else None

    def plant(key: str, data: bytes) -> str:
        path = upload_dir / key
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return str(path)

    return peek, plant


def bucket_back_door(client: Any, bucket: str) -> BackDoor:
    def peek(locator: str) -> bytes | None:
        parts = urllib.parse.urlsplit(urllib.parse.quote(locator, safe=":/"))
        try:
            reply = client.get_object(Bucket=parts.netloc, Key=urllib.parse.unquote(parts.path[1:]))
        except ClientError:
            return None
        with reply["Body"] as body:
            data: bytes = body.read()
            return data

    def plant(key: str, data: bytes) -> str:
        client.put_object(Bucket=bucket, Key=PREFIXES["audio"] + key, Body=data)
        return f"s3://{bucket}/{PREFIXES['audio']}{key}"

    return peek, plant


def service_bench(service: StorageService, back_door: BackDoor) -> Bench:
    async def save(data: bytes, conversation_id: str, filename: str) -> StoredObject:
        return await service.save_audio_file(data, conversation_id, filename, content_type="audio/wav", at=AT)

    return Bench(service, save, *back_door)


class TestMemoryStore(UpkeepContract, StoreContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        store = MemoryStore()
        return store_bench(store, tmp_path, *memory_back_door(store))


class TestLocalStore(UpkeepContract, StoreContract):
    @pytest.fixture
    def store(self, upload_dir: Path) -> LocalStore:
        return LocalStore(str(upload_dir), ThreadLane("disk", 4))

    @pytest.fixture
    def bench(self, store: LocalStore, tmp_path: Path, upload_dir: Path) -> Bench:
        return store_bench(store, tmp_path, *file_back_door(upload_dir))

    @pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a//b", ".spool/x", "a/\0", ""])
    async def test_a_key_that_is_none_is_refused(self, store: ObjectStore, tmp_path: Path, key: str) -> None:
        with pytest.raises(InvalidInput):
            source = spooled(b"x", tmp_path)
            await store.put(NewObject(source, "audio", key, "audio/wav"))


class TestS3StoreOnSwift(UpkeepContract, StoreContract):
    @pytest.fixture(scope="class")
    async def bench(
        self,
        swift: S3Server,
        bucket: str,
        raw_s3: Any,
        s3_config: Callable[..., StorageConfig],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> AsyncIterator[Bench]:
        store = S3Store(S3Connection(s3_config(swift)))
        yield store_bench(store, tmp_path_factory.mktemp("spool"), *bucket_back_door(raw_s3, bucket))
        await store.close()


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    return Spool(tmp_path_factory.mktemp("wrapped"), ThreadLane("disk", 4))


class Wrapped:
    """The suite around whose stores a wrapper is put: `wrap` is the wrapper, `through` the back door behind it."""

    def wrap(self, store: ObjectStore, spool: Spool) -> ObjectStore:
        return StoreWrapper(store)

    def through(self, back_door: BackDoor) -> BackDoor:
        return back_door


class Encoded(Wrapped):
    def wrap(self, store: ObjectStore, spool: Spool) -> ObjectStore:
        return EncodedStore(store, Salted(), spool.receive)

    def through(self, back_door: BackDoor) -> BackDoor:
        peek, plant = back_door

        def peek_through(locator: str) -> bytes | None:
            held = peek(locator)
            return None if held is None else unsalted(held)

        return peek_through, lambda key, data: plant(key, salted(data))


class OnMemory(UpkeepContract, StoreContract, Wrapped):
    @pytest.fixture
    def bench(self, tmp_path: Path, spool: Spool) -> Bench:
        store = MemoryStore()
        return store_bench(self.wrap(store, spool), tmp_path, *self.through(memory_back_door(store)))


class OnLocalFiles(UpkeepContract, StoreContract, Wrapped):
    @pytest.fixture
    def bench(self, tmp_path: Path, upload_dir: Path, spool: Spool) -> Bench:
        store = self.wrap(LocalStore(str(upload_dir), ThreadLane("disk", 4)), spool)
        return store_bench(store, tmp_path, *self.through(file_back_door(upload_dir)))


class OnSwift(UpkeepContract, StoreContract, Wrapped):
    @pytest.fixture(scope="class")
    async def bench(
        self,
        swift: S3Server,
        bucket: str,
        raw_s3: Any,
        s3_config: Callable[..., StorageConfig],
        tmp_path_factory: pytest.TempPathFactory,
        spool: Spool,
    ) -> AsyncIterator[Bench]:
        store = self.wrap(S3Store(S3Connection(s3_config(swift))), spool)
        folder = tmp_path_factory.mktemp("spool")
        yield store_bench(store, folder, *self.through(bucket_back_door(raw_s3, bucket)))
        await store.close()


class TestWrapperAroundMemory(OnMemory):
    pass


class TestWrapperAroundLocalFiles(OnLocalFiles):
    pass


class TestWrapperAroundSwift(OnSwift):
    pass


class TestEncodedMemory(Encoded, OnMemory):
    pass


class TestEncodedLocalFiles(Encoded, OnLocalFiles):
    pass


class TestEncodedSwift(Encoded, OnSwift):
    pass


class TestHealthyService(StoreContract):
    @pytest.fixture(scope="class")
    async def bench(
        self, swift: S3Server, bucket: str, raw_s3: Any, s3_config: Callable[..., StorageConfig]
    ) -> AsyncIterator[Bench]:
        async with StorageService(s3_config(swift)) as service:
            yield service_bench(service, bucket_back_door(raw_s3, bucket))


class TestServiceOnLocalFiles(StoreContract):
    @pytest.fixture
    async def bench(self, local_config: StorageConfig, upload_dir: Path) -> AsyncIterator[Bench]:
        async with StorageService(local_config) as service:
            yield service_bench(service, file_back_door(upload_dir))


class TestServiceWithItsBucketUnreachable(StoreContract):
    @pytest.fixture(scope="class")
    async def bench(self, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
        upload_dir = tmp_path_factory.mktemp("uploads")
        nothing = S3Server("127.0.0.1", free_port())
        config = StorageConfig(_env_file=None, **s3_settings(nothing, "bucket", upload_dir))
        async with StorageService(config) as service:
            yield service_bench(service, file_back_door(upload_dir))


class TestServiceWhosePrimaryFailsEveryCall(StoreContract):
    @pytest.fixture
    async def bench(self, local_config: StorageConfig, upload_dir: Path) -> AsyncIterator[Bench]:
        primary = MemoryStore("primary")
        primary.failure = StorageUnavailable("The store is down.")
        local = LocalStore(str(upload_dir), ThreadLane("disk", 4))
        async with StorageService(parts=open_parts(local_config, Stores(primary, local))) as service:
            yield service_bench(service, file_back_door(upload_dir))


class MemoryMachine(StoreMachine):
    def open_store(self, folder: Path) -> ObjectStore:
        return MemoryStore()

    def leftovers(self) -> set[str]:
        assert isinstance(self.store, MemoryStore)
        return set(self.store.objects)


class LocalMachine(StoreMachine):
    def open_store(self, folder: Path) -> ObjectStore:
        self.root = folder / "uploads"
        return LocalStore(str(self.root), ThreadLane("disk", 4))

    def leftovers(self) -> set[str]:
        assert not [d for d in self.root.rglob("*") if d.is_dir() and not any(d.iterdir())], "no empty folder stays"
        return {str(path) for path in self.root.rglob("*") if path.is_file()}


def test_memory_store_is_a_dict() -> None:
    run_state_machine_as_test(MemoryMachine, settings=settings(max_examples=30, deadline=None))


def test_local_store_is_a_dict() -> None:
    run_state_machine_as_test(LocalMachine, settings=settings(max_examples=15, deadline=None))


def test_s3_store_is_a_dict(swift: S3Server, s3_config: Callable[..., StorageConfig]) -> None:
    class S3Machine(StoreMachine):
        def open_store(self, folder: Path) -> ObjectStore:
            return S3Store(S3Connection(s3_config(swift)))

    few = settings(max_examples=6, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(S3Machine, settings=few)
