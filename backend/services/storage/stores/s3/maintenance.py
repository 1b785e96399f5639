"""S3Maintenance: sizes and listings of a bucket, for comparing them with the rows, and its quarantine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from backend.concurrency.lanes import ThreadLane
from backend.concurrency.waiting import all_of
from backend.errors import AppError, InvalidInput, ObjectMissing, StorageUnavailable
from backend.services.storage.keys import INCOMING, PREFIXES, distinct_key, validated_conversation_id
from backend.services.storage.stores.s3.connection import S3Connection, split_locator
from backend.services.storage.stores.s3.errors import s3_errors
from backend.services.storage.values import ListedObject, UnfinishedMultipart

QUARANTINE = "quarantine/"
_PART_BYTES = 64 * 1024 * 1024
"""The most that the store copies in one request; more could take longer than the read timeout."""


class S3Maintenance:
    """A bucket may be shared: only what is below Aperta's own prefixes is looked at.

    Args:
        connection: the bucket.
        lane: the threads that call S3.
    """

    def __init__(self, connection: S3Connection, lane: ThreadLane) -> None:
        self._connection = connection
        self._bucket = connection.bucket
        self._lane = lane

    async def find_sizes(self, locators: Sequence[str]) -> dict[str, int | AppError]:
        sizes: dict[str, int | AppError] = {}
        left = iter(locators)

        async def look() -> None:
            for locator in left:
                try:
                    sizes[locator] = await self._lane.run(self._get_size, locator)
                except ObjectMissing:
                    continue
                except InvalidInput as error:
                    sizes[locator] = error

        # Each looker ends at its first error, so a store that is down gets few requests.
        await all_of(*(look() for _ in range(self._connection.config.s3_max_concurrency)))
        return sizes

    async def iterate(
        self, *, after: str | None = None, conversation_id: str | None = None
    ) -> AsyncIterator[ListedObject]:
        folder = validated_conversation_id(conversation_id) + "/" if conversation_id else ""
        start = (after or "").removeprefix(f"s3://{self._bucket}/")
        for prefix in sorted(PREFIXES.values()):
            if start > prefix and not start.startswith(prefix):
                continue
            begin = start if start.startswith(prefix) else ""
            async for full_key, item in self._list(prefix + folder, begin):
                yield self._listed(full_key, full_key.removeprefix(prefix), item)

    async def move_to_quarantine(self, locator: str) -> str:
        return await self._lane.run(self._quarantine, locator)

    async def iterate_quarantine(self) -> AsyncIterator[ListedObject]:
        async for full_key, item in self._list(QUARANTINE, ""):
            yield self._listed(full_key, full_key.removeprefix(QUARANTINE), item)

    async def delete_quarantined(self, locator: str) -> None:
        if not locator.startswith(f"s3://{self._bucket}/{QUARANTINE}"):
            raise InvalidInput(f"{locator[:200]!r} is not in the quarantine.")
        await self._lane.run(self._delete, locator)

    async def iterate_uploads(self) -> AsyncIterator[UnfinishedMultipart]:
        for prefix in (*sorted(PREFIXES.values()), INCOMING):
            marker: dict[str, str] | None = {}
            while marker is not None:
                uploads, marker = await self._lane.run(self._uploads_page, prefix, marker)
                for item in uploads:
                    locator = f"s3://{self._bucket}/{item['Key']}"
                    yield UnfinishedMultipart(locator, item["UploadId"], item["Initiated"])

    async def abort_upload(self, upload: UnfinishedMultipart) -> None:
        await self._lane.run(self._abort_upload, upload)

    def _get_size(self, locator: str) -> int:
        return int(self._connection.get_head(locator)["ContentLength"])

    def _delete(self, locator: str) -> None:
        bucket, key = split_locator(locator)
        with suppress(ObjectMissing), s3_errors("delete", locator):
            self._connection.objects.delete_object(Bucket=bucket, Key=key)

    def _listed(self, full_key: str, key: str, item: dict[str, Any]) -> ListedObject:
        return ListedObject(f"s3://{self._bucket}/{full_key}", key, item["Size"], item["LastModified"])

    async def _list(self, prefix: str, after: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        while True:
            page = await self._lane.run(self._page, prefix, after)
            for item in page.get("Contents", ()):
                after = item["Key"]
                yield after, item
            if not page["IsTruncated"] or "Contents" not in page:
                return

    def _page(self, prefix: str, after: str) -> dict[str, Any]:
        with s3_errors("list", f"bucket {self._bucket}"):
            page: dict[str, Any] = self._connection.objects.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, StartAfter=after
            )
            return page

    def _uploads_page(self, prefix: str, marker: dict[str, str]) -> tuple[list[dict[str, Any]], dict[str, str] | None]:
        with s3_errors("list the uploads of", f"bucket {self._bucket}"):
            page = self._connection.objects.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix, **marker)
        # Some stores ignore the prefix here.
        found = [item for item in page.get("Uploads", ()) if item["Key"].startswith(prefix)]
        if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
            return found, None
        return found, {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}

    def _abort_upload(self, upload: UnfinishedMultipart) -> None:
        from botocore.exceptions import ClientError

        key = upload.locator.removeprefix(f"s3://{self._bucket}/")
        with s3_errors("abort the upload of", upload.locator):
            try:
                self._connection.objects.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload.upload_id)
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchUpload":
                    raise

    def _quarantine(self, locator: str) -> str:
        """Copy within the store, look at the copy, then delete."""
        full_key = locator.removeprefix(f"s3://{self._bucket}/")
        if full_key == locator or not full_key.startswith(tuple(PREFIXES.values())):
            raise InvalidInput(f"{locator[:200]!r} is not an object of bucket {self._bucket}.")
        with s3_errors("move", locator):
            head = self._connection.objects.head_object(Bucket=self._bucket, Key=full_key)
            target = self._free_name(QUARANTINE + full_key)
            self._copy(full_key, target, head)
            copied = self._connection.objects.head_object(Bucket=self._bucket, Key=target)
            if copied["ContentLength"] != head["ContentLength"]:
                raise StorageUnavailable(f"S3 copied {copied['ContentLength']} of {head['ContentLength']} bytes.")
            self._connection.objects.delete_object(Bucket=self._bucket, Key=full_key)
        return f"s3://{self._bucket}/{target}"

    def _free_name(self, full_key: str) -> str:
        found = self._connection.objects.list_objects_v2(Bucket=self._bucket, Prefix=full_key, MaxKeys=1)
        taken = any(item["Key"] == full_key for item in found.get("Contents", ()))
        return distinct_key(full_key, uuid4().hex[:6]) if taken else full_key

    def _copy(self, source: str, target: str, head: dict[str, Any]) -> None:
        from boto3.s3.transfer import TransferConfig

        described = {"ContentType": head["ContentType"], "Metadata": head["Metadata"], "MetadataDirective": "REPLACE"}
        self._connection.objects.copy(
            {"Bucket": self._bucket, "Key": source},
            self._bucket,
            target,
            ExtraArgs=described | self._connection.encryption,
            Config=TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=4),
        )
