"""The single tries of `aperta storage probe`: what is sent to a store to learn whether it can do something."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self
from uuid import uuid4

from backend.errors import ObjectMissing, StorageError, StorageMisconfigured, StorageUnavailable
from backend.services.storage.config import StorageConfig
from backend.services.storage.stores.s3.client import MIB, Checksums, S3Clients, checksums_of, open_client
from backend.services.storage.stores.s3.errors import s3_errors
from backend.services.storage.stores.s3.metadata import object_metadata

FOLDER = ".aperta-probe"
MAX_SKEW_S = 300.0
"""Stores refuse signatures that are 15 minutes off; less than half of that is still worth a word."""
_BODY = b"aperta probe\n" * 80
_ABOUT_THE_BUCKET = {"AccessDenied", "InvalidBucketName", "NoSuchBucket", "PermanentRedirect"}
"""What a store answers only to those whose signature it has found good."""
_PART_BYTES = 5 * MIB  # S3's smallest, but for the last one


class No(Exception):
    """The store answered, and cannot do it. The message is the detail."""


class Tries:
    """One run in a separate folder. Each public method tries one thing and returns what it saw, or raises.

    Raises:
        No: the store answers, and cannot do it.
        StorageError: it refuses, or does not answer.
    """

    def __init__(self, config: StorageConfig, clients: S3Clients) -> None:
        self._config = config
        self._bucket = config.s3_bucket_name or ""
        self._client = clients.checks
        self._links = clients.links
        self._folder = f"{FOLDER}/{uuid4().hex}"
        self._made: list[str] = []
        self._clocks: list[tuple[datetime, datetime]] = []
        self._client.meta.events.register("after-call.s3", self._remember_date)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for key in self._made:
            with suppress(StorageError), s3_errors("delete", key):
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def credentials(self) -> str:
        from botocore.exceptions import ClientError

        with s3_errors("list", f"bucket {self._bucket}"):
            try:
                self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _ABOUT_THE_BUCKET:
                    raise
        return "accepted"

    def bucket(self) -> str:
        with s3_errors("list", f"bucket {self._bucket}"):
            self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)
        return f"{self._bucket} can be listed"

    def latency(self) -> str:
        seconds = []
        for _ in range(5):
            begun = time.perf_counter()
            with s3_errors("check", f"bucket {self._bucket}"):
                self._client.head_bucket(Bucket=self._bucket)
            seconds.append(time.perf_counter() - begun)
        return f"{statistics.median(seconds) * 1000:.1f} ms for an answer (median of {len(seconds)})"

    def put(self) -> str:
        where = self._new("object")
        with s3_errors("put", where["Key"]):
            self._client.put_object(**where, Body=_BODY)
        with s3_errors("get", where["Key"]):
            size_bytes = self._client.head_object(**where)["ContentLength"]
            part = _read(self._client.get_object(**where, Range="bytes=3-9"))
        if (size_bytes, self._get(where), part) != (len(_BODY), _BODY, _BODY[3:10]):
            raise No("other bytes came back than were sent")
        return f"{len(_BODY)} bytes, and a range of them"

    def delete(self) -> str:
        where = self._new("deleted")
        with s3_errors("delete", where["Key"]):
            self._client.put_object(**where, Body=_BODY)
            self._client.delete_object(**where)
        try:
            self._get(where)
        except ObjectMissing:
            return "gone at once"
        raise No("still there")

    def empty(self) -> str:
        where = self._new("empty")
        with s3_errors("put", where["Key"]):
            self._client.put_object(**where, Body=b"")
        if self._get(where) != b"":
            raise No("it came back with bytes")
        return "0 bytes"

    def metadata(self) -> str:
        where, sent = self._new("metadata"), object_metadata({"sha256": "f" * 64, "speaker_count": 2})
        with s3_errors("put", where["Key"]):
            self._client.put_object(**where, Body=_BODY, Metadata=sent, ContentType="audio/flac")
            head = self._client.head_object(**where)
        kept = {name.lower(): value for name, value in head["Metadata"].items()}
        if kept != sent or head["ContentType"] != "audio/flac":
            raise No(f"{head['ContentType']} and {kept} came back")
        return ", ".join(sent)

    def multipart(self) -> str:
        where, parts = self._new("multipart"), (bytes(_PART_BYTES), _BODY)
        with s3_errors("put", where["Key"]):
            upload = {**where, "UploadId": self._client.create_multipart_upload(**where)["UploadId"]}
            sent = [
                {
                    "PartNumber": number,
                    "ETag": self._client.upload_part(**upload, PartNumber=number, Body=part)["ETag"],
                }
                for number, part in enumerate(parts, start=1)
            ]
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent})
        if hashlib.sha256(self._get(where)).digest() != hashlib.sha256(b"".join(parts)).digest():
            raise No("other bytes came back than were sent")
        return f"{len(parts)} parts"

    def abort(self) -> str:
        where = self._new("aborted")
        with s3_errors("abort", where["Key"]):
            upload = {**where, "UploadId": self._client.create_multipart_upload(**where)["UploadId"]}
            self._client.upload_part(**upload, PartNumber=1, Body=_BODY)
            self._client.abort_multipart_upload(**upload)
        try:
            with s3_errors("list uploads of", f"bucket {self._bucket}"):
                left = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=where["Key"]).get("Uploads", [])
        except StorageMisconfigured as error:
            return f"done; {error}"
        if left:
            raise No("it is still listed")
        return "nothing is left"

    def presigned_get(self) -> str:
        where = self._new("link")
        with s3_errors("put", where["Key"]):
            self._client.put_object(**where, Body=_BODY)
        status, body = self._follow("GET", "get_object", {**where, "ResponseContentType": "audio/flac"})
        if (status, body) != (200, _BODY):
            raise No(f"HTTP {status} {_code(body)}")
        return self._config.s3_public_endpoint_url or "at the same address"

    def presigned_put(self) -> str:
        where = self._new("sent")
        status, body = self._follow("PUT", "put_object", where, _BODY)
        if status != 200:
            raise No(f"HTTP {status} {_code(body)}")
        if self._get(where) != _BODY:
            raise No("other bytes came back than were sent")
        return f"{len(_BODY)} bytes"

    def encryption(self, wanted: str) -> str:
        where = self._new(f"encrypted-{wanted.replace(':', '-')}")
        with s3_errors("put", where["Key"]):
            self._client.put_object(**where, Body=_BODY, ServerSideEncryption=wanted)
            got = self._client.head_object(**where).get("ServerSideEncryption")
        if got != wanted:
            raise No(f"it takes the header and confirms {got or 'nothing'}: S3_SERVER_SIDE_ENCRYPTION=none is honest")
        return "confirmed"

    def checksums(self, mode: Checksums) -> str:
        client, where = open_client(self._config, mode), self._new(mode)
        try:
            with s3_errors("put", where["Key"]):
                client.put_object(**where, Body=_BODY)
        finally:
            client.close()
        return "in use" if mode == checksums_of(self._config) else "possible"

    def damaged(self) -> str:
        where, other = self._new("damaged"), b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
        try:
            with s3_errors("put", where["Key"]):
                self._client.put_object(**where, Body=_BODY, ContentMD5=other)
        except StorageUnavailable as error:
            return _first_words(error)
        raise No("it takes bytes that do not fit their MD5")

    def conditional(self) -> str:
        where = self._new("conditional")
        with s3_errors("put", where["Key"]):
            self._client.put_object(**where, Body=b"first", IfNoneMatch="*")
        try:
            with s3_errors("put", where["Key"]):
                self._client.put_object(**where, Body=b"second", IfNoneMatch="*")
        except StorageError as error:
            if self._get(where) == b"first":
                return _first_words(error)
        raise No("If-None-Match is ignored: the object was overwritten")

    def versioning(self) -> str:
        with s3_errors("ask for the versioning of", f"bucket {self._bucket}"):
            status = self._client.get_bucket_versioning(Bucket=self._bucket).get("Status")
        if status != "Enabled":
            raise No(status or "never switched on")
        return "Enabled"

    def clock(self) -> str:
        if not self._clocks:
            raise No("no answer told the time")
        skew_s = min(((theirs - ours).total_seconds() for theirs, ours in self._clocks), key=abs)
        if abs(skew_s) > MAX_SKEW_S:
            raise No(f"the store is {skew_s:+.0f} s off this machine: set the clocks (NTP)")
        return f"{skew_s:+.0f} s"

    def _new(self, name: str) -> dict[str, str]:
        key = f"{self._folder}/{name}"
        self._made.append(key)
        return {"Bucket": self._bucket, "Key": key}

    def _get(self, where: dict[str, str]) -> bytes:
        with s3_errors("get", where["Key"]):
            return _read(self._client.get_object(**where))

    def _follow(self, method: str, operation: str, params: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
        """Do what a client does with a link: no credentials, the SDK's certificates."""
        from botocore.awsrequest import AWSRequest
        from botocore.httpsession import URLLib3Session

        with s3_errors(method, params["Key"]):
            url = self._links.generate_presigned_url(operation, Params=params, ExpiresIn=60)
            session = URLLib3Session(verify=_authorities(), timeout=self._config.s3_read_timeout_s)
            try:
                reply = session.send(AWSRequest(method, url, data=body or None).prepare())
                return int(reply.status_code), bytes(reply.content)
            finally:
                session.close()

    def _remember_date(self, http_response: Any, **_: object) -> None:
        if told := http_response.headers.get("Date"):
            with suppress(ValueError):
                self._clocks.append((parsedate_to_datetime(told).astimezone(UTC), datetime.now(UTC)))


def _read(reply: dict[str, Any]) -> bytes:
    with reply["Body"] as body:
        data: bytes = body.read()
        return data


def _authorities() -> Any:
    """The certificates that the SDK trusts: AWS_CA_BUNDLE, the profile's, or its own."""
    from botocore.session import Session

    return Session().get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or True


def _code(body: bytes) -> str:
    return body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode("ascii", "replace")


def _first_words(error: StorageError) -> str:
    return str(error).partition(": ")[2].partition(".")[0] or str(error)
