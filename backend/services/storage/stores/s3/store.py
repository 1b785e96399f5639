"""S3Store: objects in a bucket of AWS or of any S3-compatible store. boto3 in threads; bytes go from and to files."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import anyio

from backend.concurrency.lanes import ThreadLane
from backend.domain.filenames import attachment
from backend.errors import ObjectMissing, StorageMisconfigured, StorageUnavailable
from backend.services.storage.files import CHUNK_BYTES
from backend.services.storage.integrity import Proven, corrupt
from backend.services.storage.keys import PREFIXES, validated_key
from backend.services.storage.port import validated_range
from backend.services.storage.stores.maintained import MaintainedStore
from backend.services.storage.stores.s3.connection import SCHEME, S3Connection, split_locator, version_of
from backend.services.storage.stores.s3.errors import s3_errors
from backend.services.storage.stores.s3.maintenance import S3Maintenance
from backend.services.storage.stores.s3.writer import S3Writer
from backend.services.storage.values import (
    Expected,
    GiveUp,
    NewObject,
    ObjectKind,
    ObjectState,
    PresignedUrl,
    StoredObject,
    StoreTraits,
)

_CANARY = b"aperta canary\n" * 73  # 1 KB


class S3Store(MaintainedStore):
    """Write-once objects in one bucket. Nothing is opened before the first call.

    Args:
        connection: the bucket; may be shared.
    """

    def __init__(self, connection: S3Connection) -> None:
        config = connection.config
        self._connection = connection
        self._bucket = connection.bucket
        self._config = config
        self._lane = ThreadLane("s3", config.s3_max_concurrency)
        self._move_lane = ThreadLane("s3-move", config.drain_concurrency)
        self._check_lane = ThreadLane("s3-check", 2)
        self._writer = S3Writer(connection)
        self._proven = Proven()
        super().__init__(S3Maintenance(connection, self._lane))

    @property
    def name(self) -> str:
        return "s3"

    @property
    def traits(self) -> StoreTraits:
        return StoreTraits(presigns=True, takes_parts=True)

    def owns(self, locator: str) -> bool:
        return locator.startswith(SCHEME)

    def locator(self, kind: ObjectKind, key: str) -> str:
        return self._connection.locator(PREFIXES[kind] + validated_key(key))

    def key(self, locator: str) -> str:
        _, key = split_locator(locator)
        return key.partition("/")[2] if key.startswith(tuple(PREFIXES.values())) else key

    async def check(self, *, write: bool = True) -> None:
        # Loading boto3 for the first time takes a second or more and says nothing about the store.
        await self._check_lane.run(self._connection.clients)
        limit_s = self._config.s3_connect_timeout_s + self._config.s3_read_timeout_s
        try:
            with anyio.fail_after(limit_s):
                await self._check_lane.run_or_leave(self._check, write)
        except TimeoutError as error:
            raise StorageUnavailable(f"S3 did not answer within {limit_s:g} s.", answered=False) from error

    async def put(self, new: NewObject, *, give_up: GiveUp | None = None) -> StoredObject:
        lane = self._move_lane if new.move else self._lane
        return await lane.run(self._writer.put, new, self.name, give_up)

    async def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        validated_range(start, end)
        body = await self._lane.run(self._get, locator, start, end)
        if body is None:
            return
        try:
            while chunk := await self._lane.run(_read, body, locator):
                yield chunk
        finally:
            body.close()

    async def stat(self, locator: str) -> ObjectState:
        head = await self._lane.run(self._connection.get_head, locator)
        return ObjectState(int(head["ContentLength"]), version_of(head))

    async def delete(self, locator: str) -> None:
        with suppress(ObjectMissing):
            await self._lane.run(self._delete, *split_locator(locator))

    async def access(
        self, locator: str, *, filename: str, content_type: str, expected: Expected | None = None
    ) -> PresignedUrl:
        head = await self._lane.run(self._connection.get_head, locator)
        if expected is not None:
            await self._lane.run(self._check_integrity, locator, head, expected)
        return await self._lane.run(self._presign, locator, filename, content_type)

    async def close(self) -> None:
        self._connection.close()

    def _check_integrity(self, locator: str, head: dict[str, Any], expected: Expected) -> None:
        """Hold the store's word against the row's; only what was replaced since is read and hashed, once."""
        if head["ContentLength"] != expected.size_bytes:
            raise corrupt(locator, f"it has {head['ContentLength']} bytes instead of {expected.size_bytes}")
        version = version_of(head)
        if expected.version in (None, version) or self._proven.knows(locator, version, expected.sha256):
            return
        # Another ETag can be honest: a bucket that was copied to another store.
        if self._hash(locator) != expected.sha256:
            raise corrupt(locator, "its SHA-256 differs")
        self._proven.add(locator, version, expected.sha256)

    def _hash(self, locator: str) -> str:
        bucket, key = split_locator(locator)
        with s3_errors("get", locator), self._connection.objects.get_object(Bucket=bucket, Key=key)["Body"] as body:
            return hashlib.file_digest(body, "sha256").hexdigest()

    def _get(self, locator: str, start: int, end: int | None) -> Any | None:
        bucket, key = split_locator(locator)
        if end == start:
            self._connection.get_head(locator)
            return None
        span = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
        from botocore.exceptions import ClientError

        with s3_errors("get", locator):
            try:
                return self._connection.objects.get_object(Bucket=bucket, Key=key, **span)["Body"]
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 416:  # starts past the end
                    return None
                raise

    def _delete(self, bucket: str, key: str) -> None:
        with s3_errors("delete", f"{SCHEME}{bucket}/{key}"):
            self._connection.objects.delete_object(Bucket=bucket, Key=key)

    def _presign(self, locator: str, filename: str, content_type: str) -> PresignedUrl:
        bucket, key = split_locator(locator)
        expires_s = self._config.s3_presigned_url_expires_s
        reply = {"ResponseContentDisposition": attachment(filename), "ResponseContentType": content_type}
        with s3_errors("sign", locator):
            url = self._connection.clients().links.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key, **reply}, ExpiresIn=expires_s
            )
        return PresignedUrl(url, expires_s)

    def _check(self, write: bool) -> None:
        client, bucket = self._connection.clients().checks, self._bucket
        try:
            with s3_errors("check", f"bucket {bucket}"):
                client.head_bucket(Bucket=bucket)
        except (ObjectMissing, StorageMisconfigured):
            with s3_errors("check", f"bucket {bucket}"):
                client.list_objects_v2(Bucket=bucket, MaxKeys=1)  # says in words what HEAD cannot
            raise
        if write:
            self._check_write(client)

    def _check_write(self, client: Any) -> None:
        where = {"Bucket": self._bucket, "Key": f".aperta-canary/{uuid4().hex}"}
        with s3_errors("write to", f"bucket {self._bucket}", encryption=self._config.s3_server_side_encryption):
            client.put_object(**where, Body=_CANARY, **self._connection.encryption)
        with s3_errors("read from", f"bucket {self._bucket}"):
            with client.get_object(**where)["Body"] as body:
                intact = body.read() == _CANARY
            client.delete_object(**where)
        if not intact:
            raise StorageUnavailable(f"Bucket {self._bucket} returned other bytes than were written to it.")


def _read(body: Any, locator: str) -> bytes:
    with s3_errors("get", locator):
        chunk: bytes = body.read(CHUNK_BYTES)
        return chunk
