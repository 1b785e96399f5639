"""S3DirectUploads: uploads in parts that clients send straight to the bucket, by signed links."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from backend.concurrency.lanes import ThreadLane
from backend.errors import ObjectMissing
from backend.services.storage.port import ObjectStore
from backend.services.storage.stores.s3.connection import S3Connection
from backend.services.storage.stores.s3.errors import s3_errors
from backend.services.storage.values import PresignedUrl, UploadedPart


class S3DirectUploads:
    """Multipart uploads of one bucket. Nothing is opened before the first call.

    Args:
        connection: the bucket; may be shared.
        store: reads what has arrived; a store of the same bucket without wrappers.
    """

    def __init__(self, connection: S3Connection, store: ObjectStore) -> None:
        self._connection = connection
        self._store = store
        self._bucket = connection.bucket
        self._lane = ThreadLane("s3-direct", 4)

    async def begin(self, key: str, content_type: str) -> str:
        return await self._lane.run(self._begin, key, content_type)

    async def sign(self, key: str, upload_id: str, sizes_bytes: Sequence[int], expires_s: int) -> list[PresignedUrl]:
        return await self._lane.run(self._sign, key, upload_id, sizes_bytes, expires_s)

    async def list_parts(self, key: str, upload_id: str) -> list[UploadedPart]:
        return await self._lane.run(self._list_parts, key, upload_id)

    async def complete(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        await self._lane.run(self._complete, key, upload_id, parts)

    async def abort(self, key: str, upload_id: str) -> None:
        await self._lane.run(self._abort, key, upload_id)

    async def get_size(self, key: str) -> int:
        return (await self._store.stat(self._connection.locator(key))).size_bytes

    def open(self, key: str) -> AsyncGenerator[bytes, None]:
        return self._store.open(self._connection.locator(key))

    async def close(self) -> None:
        self._connection.close()

    def _begin(self, key: str, content_type: str) -> str:
        encryption = self._connection.config.s3_server_side_encryption
        with s3_errors("begin an upload to", self._connection.locator(key), encryption=encryption):
            begun = self._connection.objects.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=content_type, **self._connection.encryption
            )
        return str(begun["UploadId"])

    def _sign(self, key: str, upload_id: str, sizes_bytes: Sequence[int], expires_s: int) -> list[PresignedUrl]:
        """The length is signed too, so that a link cannot be used to send more than it was made for."""
        where = {"Bucket": self._bucket, "Key": key, "UploadId": upload_id}
        with s3_errors("sign", self._connection.locator(key)):
            return [
                PresignedUrl(
                    self._connection.clients().links.generate_presigned_url(
                        "upload_part",
                        Params=where | {"PartNumber": number, "ContentLength": size_bytes},
                        ExpiresIn=expires_s,
                    ),
                    expires_s,
                )
                for number, size_bytes in enumerate(sizes_bytes, start=1)
            ]

    def _list_parts(self, key: str, upload_id: str) -> list[UploadedPart]:
        where = {"Bucket": self._bucket, "Key": key, "UploadId": upload_id}
        with s3_errors("list the parts of", self._connection.locator(key)):
            pages = self._connection.objects.get_paginator("list_parts").paginate(**where)
            return [
                UploadedPart(part["PartNumber"], part["Size"], part["ETag"])
                for page in pages
                for part in page.get("Parts", ())
            ]

    def _complete(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        listed = [{"PartNumber": part.number, "ETag": part.version} for part in parts]
        with s3_errors("complete the upload of", self._connection.locator(key)):
            self._connection.objects.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": listed}
            )

    def _abort(self, key: str, upload_id: str) -> None:
        where = {"Bucket": self._bucket, "Key": key}
        with suppress(ObjectMissing), s3_errors("abort the upload of", self._connection.locator(key)):
            self._connection.objects.abort_multipart_upload(**where, UploadId=upload_id)
        # In case it was completed before.
        with s3_errors("delete", self._connection.locator(key)):
            self._connection.objects.delete_object(**where)
