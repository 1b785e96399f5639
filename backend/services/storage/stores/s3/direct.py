"""S3DirectUploads: uploads in parts that clients send straight to the bucket, by signed links."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from backend.concurrency.lanes import ThreadLane
from backend.errors import ObjectMissing, StorageMisconfigured
from backend.services.storage.config import StorageConfig
from backend.services.storage.stores.s3.client import S3Clients, open_clients
from backend.services.storage.stores.s3.errors import s3_errors
from backend.services.storage.values import PresignedUrl, UploadedPart


class S3DirectUploads:
    """Multipart uploads of one bucket. Nothing is opened before the first call."""

    def __init__(self, config: StorageConfig) -> None:
        if not config.s3_bucket_name:
            raise StorageMisconfigured("S3_BUCKET_NAME is not set.")
        self._config = config
        self._bucket = config.s3_bucket_name
        self._lane = ThreadLane("s3-direct", 4)
        self._opened: S3Clients | None = None
        self._opening = threading.Lock()

    def locator(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

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

    async def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _clients(self) -> S3Clients:
        with self._opening:
            if self._opened is None:
                self._opened = open_clients(self._config)
            return self._opened

    def _begin(self, key: str, content_type: str) -> str:
        encryption = self._config.s3_server_side_encryption
        asked = {} if encryption == "none" else {"ServerSideEncryption": encryption}
        with s3_errors("begin an upload to", self.locator(key), encryption=encryption):
            begun = self._clients().objects.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=content_type, **asked
            )
        return str(begun["UploadId"])

    def _sign(self, key: str, upload_id: str, sizes_bytes: Sequence[int], expires_s: int) -> list[PresignedUrl]:
        """The length is signed too, so that nobody can send more by a link than it was made for."""
        where = {"Bucket": self._bucket, "Key": key, "UploadId": upload_id}
        with s3_errors("sign", self.locator(key)):
            return [
                PresignedUrl(
                    self._clients().links.generate_presigned_url(
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
        with s3_errors("list the parts of", self.locator(key)):
            pages = self._clients().objects.get_paginator("list_parts").paginate(**where)
            return [
                UploadedPart(part["PartNumber"], part["Size"], part["ETag"])
                for page in pages
                for part in page.get("Parts", ())
            ]

    def _complete(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        listed = [{"PartNumber": part.number, "ETag": part.version} for part in parts]
        with s3_errors("complete the upload of", self.locator(key)):
            self._clients().objects.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": listed}
            )

    def _abort(self, key: str, upload_id: str) -> None:
        where = {"Bucket": self._bucket, "Key": key}
        with suppress(ObjectMissing), s3_errors("abort the upload of", self.locator(key)):
            self._clients().objects.abort_multipart_upload(**where, UploadId=upload_id)
        # In case it was completed before.
        with s3_errors("delete", self.locator(key)):
            self._clients().objects.delete_object(**where)
