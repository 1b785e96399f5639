"""S3Store: objects in a bucket of AWS or of any S3-compatible store. boto3 in threads; bytes go from and to files."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio

from backend.concurrency.lanes import ThreadLane
from backend.domain.filenames import attachment
from backend.errors import (
    InvalidInput,
    ObjectExists,
    ObjectMissing,
    StorageError,
    StorageMisconfigured,
    StorageUnavailable,
)
from backend.services.storage.config import StorageConfig
from backend.services.storage.files import CHUNK_BYTES, disk_errors
from backend.services.storage.integrity import Proven, corrupt
from backend.services.storage.keys import PREFIXES, validated_key
from backend.services.storage.port import validated_range
from backend.services.storage.stores.s3.client import (
    MULTIPART_THRESHOLD_BYTES,
    S3Clients,
    open_clients,
    transfer_config,
)
from backend.services.storage.stores.s3.errors import s3_errors
from backend.services.storage.stores.s3.maintenance import S3Upkeep
from backend.services.storage.stores.s3.metadata import object_metadata
from backend.services.storage.values import Expected, GiveUp, Kind, Move, PresignedUrl, SpooledFile, StoredObject

logger = logging.getLogger(__name__)

_CANARY = b"aperta canary\n" * 73  # 1 KB


class S3Store(S3Upkeep):
    """Write-once objects in one bucket. Nothing is opened before the first call.

    Write-once is HEAD before PUT and a look at the hash after it, guarded within this process: conditional writes
    differ too much between vendors to rely on. Across processes it rests on conversation ids being unique.
    """

    def __init__(self, config: StorageConfig) -> None:
        if not config.s3_bucket_name:
            raise StorageMisconfigured("S3_BUCKET_NAME is not set.")
        self._config = config
        self._bucket = config.s3_bucket_name
        self._lane = ThreadLane("s3", config.s3_max_concurrency)
        self._move_lane = ThreadLane("s3-move", config.drain_concurrency)
        self._check_lane = ThreadLane("s3-check", 2)
        self._opened: S3Clients | None = None
        self._opening = threading.Lock()
        self._keys_in_flight: set[str] = set()
        self._proven = Proven()

    @property
    def name(self) -> str:
        return "s3"

    def owns(self, locator: str) -> bool:
        return locator.startswith("s3://")

    def locator(self, kind: Kind, key: str) -> str:
        return f"s3://{self._bucket}/{PREFIXES[kind]}{validated_key(key)}"

    def key(self, locator: str) -> str:
        _, key = _split(locator)
        return key.partition("/")[2] if key.startswith(tuple(PREFIXES.values())) else key

    async def check(self, *, write: bool = True) -> None:
        # Loading boto3 for the first time takes a second or more and says nothing about the store.
        await self._check_lane.run(self._clients)
        limit_s = self._config.s3_connect_timeout_s + self._config.s3_read_timeout_s
        try:
            with anyio.fail_after(limit_s):
                await self._check_lane.run_or_leave(self._check, write)
        except TimeoutError as error:
            raise StorageUnavailable(f"S3 did not answer within {limit_s:g} s.", answered=False) from error

    async def put(
        self,
        spooled: SpooledFile,
        *,
        kind: Kind,
        key: str,
        content_type: str,
        metadata: Mapping[str, object],
        give_up: GiveUp | None = None,
        move: Move | None = None,
    ) -> StoredObject:
        full_key = PREFIXES[kind] + validated_key(key)
        extra = self._encryption() | {
            "ContentType": content_type,
            "Metadata": object_metadata({**metadata, "sha256": spooled.sha256}),
        }
        lane = self._move_lane if move else self._lane
        version, warnings = await lane.run(self._put, spooled, full_key, extra, give_up or _go_on, move)
        return StoredObject(
            f"s3://{self._bucket}/{full_key}",
            self.name,
            key,
            kind,
            spooled.size_bytes,
            spooled.sha256,
            content_type,
            warnings,
            version,
        )

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

    async def get_size(self, locator: str) -> int:
        return int((await self._lane.run(self._get_head, locator))["ContentLength"])

    async def delete(self, locator: str) -> None:
        with suppress(ObjectMissing):
            await self._lane.run(self._delete, *_split(locator))

    async def access(
        self, locator: str, *, filename: str, content_type: str, expected: Expected | None = None
    ) -> PresignedUrl:
        head = await self._lane.run(self._get_head, locator)
        if expected is not None:
            await self._lane.run(self._check_integrity, locator, head, expected)
        return await self._lane.run(self._presign, locator, filename, content_type)

    async def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _clients(self) -> S3Clients:
        """Open once; a failure is not remembered, so credentials that appear later are found."""
        with self._opening:
            if self._opened is None:
                self._opened = open_clients(self._config)
            return self._opened

    def _put(
        self, spooled: SpooledFile, key: str, extra: dict[str, Any], give_up: GiveUp, move: Move | None
    ) -> tuple[str, tuple[str, ...]]:
        if (error := give_up()) is not None:
            raise error
        with self._opening:
            if key in self._keys_in_flight:
                raise ObjectExists(f"s3://{self._bucket}/{key} is being written.")
            self._keys_in_flight.add(key)
        try:
            if not self._exists(key):
                self._send(spooled, key, extra, give_up, move.max_bytes_per_s if move else 0)
            elif move is None or not self._has_same(spooled, key):
                raise ObjectExists(f"s3://{self._bucket}/{key} exists already.")
            return self._confirm(spooled, key)
        finally:
            self._keys_in_flight.discard(key)

    def _send(
        self, spooled: SpooledFile, key: str, extra: dict[str, Any], give_up: GiveUp, max_bytes_per_s: int
    ) -> None:
        encryption = self._config.s3_server_side_encryption
        try:
            with disk_errors(spooled.path), s3_errors("put", f"s3://{self._bucket}/{key}", encryption=encryption):
                self._send_file(spooled, key, extra, give_up, max_bytes_per_s)
        except StorageError as error:
            # What stopped the sending comes back as an error of the SDK.
            raise give_up() or error from error

    def _send_file(
        self, spooled: SpooledFile, key: str, extra: dict[str, Any], give_up: GiveUp, max_bytes_per_s: int
    ) -> None:
        client = self._clients().objects
        if spooled.size_bytes > MULTIPART_THRESHOLD_BYTES or (max_bytes_per_s and spooled.size_bytes):
            client.upload_file(
                str(spooled.path),
                self._bucket,
                key,
                ExtraArgs=extra,
                Config=transfer_config(spooled.size_bytes, max_bytes_per_s),
                Callback=lambda _: _stop_if(give_up()),
            )
            return
        # The managed upload would add threads and, for 0 bytes, trips some stores.
        with _Source(spooled.path, give_up) as file:
            client.put_object(Bucket=self._bucket, Key=key, Body=file, **extra)

    def _confirm(self, spooled: SpooledFile, key: str) -> tuple[str, tuple[str, ...]]:
        """Look at what the store has now: its size and hash must be ours, and the encryption what was asked for.

        Returns:
            The object's version, and warnings.
        """
        head = self._head(self._bucket, key)
        if head["ContentLength"] != spooled.size_bytes:
            raise StorageUnavailable(
                f"S3 holds {head['ContentLength']} of {spooled.size_bytes} bytes of s3://{self._bucket}/{key}."
            )
        names = {name.lower(): value for name, value in head["Metadata"].items()}
        if names.get("sha256", spooled.sha256) != spooled.sha256:
            raise ObjectExists(f"Another process wrote s3://{self._bucket}/{key} at the same moment.")
        wanted, got = self._config.s3_server_side_encryption, head.get("ServerSideEncryption")
        if wanted == "none" or got == wanted:
            return _version(head), ()
        warning = f"S3 did not confirm the server-side encryption {wanted} (it says {got or 'nothing'})."
        logger.warning("%s s3://%s/%s", warning, self._bucket, key)
        return _version(head), (warning,)

    def _check_integrity(self, locator: str, head: dict[str, Any], expected: Expected) -> None:
        """Hold the store's word against the row's; only what was replaced meanwhile is read and hashed, once."""
        if head["ContentLength"] != expected.size_bytes:
            raise corrupt(locator, f"it has {head['ContentLength']} bytes instead of {expected.size_bytes}")
        version = _version(head)
        if expected.version in (None, version) or self._proven.knows(locator, version, expected.sha256):
            return
        # Another ETag can be honest: a bucket that was copied to another store.
        if self._hash(locator) != expected.sha256:
            raise corrupt(locator, "its SHA-256 is another one")
        self._proven.add(locator, version, expected.sha256)

    def _hash(self, locator: str) -> str:
        bucket, key = _split(locator)
        digest = hashlib.sha256()
        with s3_errors("get", locator), self._clients().objects.get_object(Bucket=bucket, Key=key)["Body"] as body:
            while chunk := body.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def _exists(self, key: str) -> bool:
        try:
            self._head(self._bucket, key)
        except ObjectMissing:
            return False
        except StorageMisconfigured:
            self._ask_again_in_words(self._bucket, key)
            raise
        return True

    def _has_same(self, spooled: SpooledFile, key: str) -> bool:
        """Whether the object under a key was written from the same bytes, as far as it says so itself."""
        head = self._head(self._bucket, key)
        names = {name.lower(): value for name, value in head["Metadata"].items()}
        return bool(head["ContentLength"] == spooled.size_bytes and names.get("sha256") == spooled.sha256)

    def _get_head(self, locator: str) -> dict[str, Any]:
        bucket, key = _split(locator)
        try:
            return self._head(bucket, key)
        except (ObjectMissing, StorageMisconfigured):
            self._ask_again_in_words(bucket, key)
            raise

    def _head(self, bucket: str, key: str) -> dict[str, Any]:
        with s3_errors("get", f"s3://{bucket}/{key}"):
            head: dict[str, Any] = self._clients().objects.head_object(Bucket=bucket, Key=key)
            return head

    def _ask_again_in_words(self, bucket: str, key: str) -> None:
        """A refused HEAD has no body. GET says whether object or bucket is missing, and why access is denied."""
        with s3_errors("get", f"s3://{bucket}/{key}"):
            self._clients().objects.get_object(Bucket=bucket, Key=key)["Body"].close()

    def _get(self, locator: str, start: int, end: int | None) -> Any | None:
        bucket, key = _split(locator)
        if end == start:
            self._get_head(locator)
            return None
        span = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
        from botocore.exceptions import ClientError

        with s3_errors("get", locator):
            try:
                return self._clients().objects.get_object(Bucket=bucket, Key=key, **span)["Body"]
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 416:  # starts past the end
                    return None
                raise

    def _delete(self, bucket: str, key: str) -> None:
        with s3_errors("delete", f"s3://{bucket}/{key}"):
            self._clients().objects.delete_object(Bucket=bucket, Key=key)

    def _presign(self, locator: str, filename: str, content_type: str) -> PresignedUrl:
        bucket, key = _split(locator)
        expires_s = self._config.s3_presigned_url_expires_s
        reply = {"ResponseContentDisposition": attachment(filename), "ResponseContentType": content_type}
        with s3_errors("sign", locator):
            url = self._clients().links.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key, **reply}, ExpiresIn=expires_s
            )
        return PresignedUrl(url, expires_s)

    def _check(self, write: bool) -> None:
        client, bucket = self._clients().checks, self._bucket
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
            client.put_object(**where, Body=_CANARY, **self._encryption())
        with s3_errors("read from", f"bucket {self._bucket}"):
            with client.get_object(**where)["Body"] as body:
                intact = body.read() == _CANARY
            client.delete_object(**where)
        if not intact:
            raise StorageUnavailable(f"Bucket {self._bucket} returned other bytes than were written to it.")

    def _encryption(self) -> dict[str, Any]:
        wanted = self._config.s3_server_side_encryption
        return {} if wanted == "none" else {"ServerSideEncryption": wanted}


class _Source(io.FileIO):
    """The file that is sent. It stops the sending when it should not go on; the SDK offers no other way in a PUT."""

    def __init__(self, path: Path, give_up: GiveUp) -> None:
        super().__init__(path, "rb")
        self._give_up = give_up

    def read(self, size: int | None = -1, /) -> bytes:
        _stop_if(self._give_up())
        return super().read(-1 if size is None else size)


def _stop_if(error: StorageError | None) -> None:
    if error is not None:
        raise error


def _go_on() -> None:
    return None


def _version(head: dict[str, Any]) -> str:
    """The ETag: a name for the bytes, the same until they are replaced."""
    return str(head.get("ETag", "")).strip('"')


def _split(locator: str) -> tuple[str, str]:
    """Return bucket and key. Any bucket: rows outlive a change of S3_BUCKET_NAME."""
    bucket, _, key = locator.removeprefix("s3://").partition("/")
    if not locator.startswith("s3://") or not bucket or not key:
        raise InvalidInput(f"{locator[:200]!r} is not an S3 object.")
    return bucket, key


def _read(body: Any, locator: str) -> bytes:
    with s3_errors("get", locator):
        chunk: bytes = body.read(CHUNK_BYTES)
        return chunk
