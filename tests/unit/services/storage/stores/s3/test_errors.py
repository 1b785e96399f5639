"""Each answer of an S3 store keeps its meaning; metadata fits into headers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import (
    ObjectMissing,
    ObjectRefused,
    StorageError,
    StorageFull,
    StorageMisconfigured,
    StorageUnavailable,
)
from backend.services.storage.stores.s3.errors import refusal
from backend.services.storage.stores.s3.metadata import MAX_TOTAL_BYTES, object_metadata


def answer(code: str, status: int, message: str = "") -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("code", "status", "kind", "said"),
    [
        ("NoSuchKey", 404, ObjectMissing, "not in S3"),
        ("404", 404, ObjectMissing, "not in S3"),
        ("NoSuchBucket", 404, StorageMisconfigured, "S3_BUCKET_NAME"),
        ("InvalidAccessKeyId", 403, StorageMisconfigured, "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, StorageMisconfigured, "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", 400, StorageMisconfigured, "expired"),
        ("RequestTimeTooSkewed", 403, StorageMisconfigured, "clock"),
        ("AccessDenied", 403, StorageMisconfigured, "s3:PutObject"),
        ("403", 403, StorageMisconfigured, "s3:PutObject"),
        ("PermanentRedirect", 301, StorageMisconfigured, "S3_REGION"),
        ("NotImplemented", 501, StorageMisconfigured, "does not implement"),
        ("SlowDown", 503, StorageUnavailable, "SlowDown"),
        ("InternalError", 500, StorageUnavailable, "Waiting"),
        ("RequestTimeout", 400, StorageUnavailable, "Waiting"),
        ("502", 502, StorageUnavailable, "Waiting"),
        ("QuotaExceeded", 403, StorageFull, "quota"),
        ("InsufficientStorage", 507, StorageFull, "quota"),
        ("EntityTooLarge", 400, ObjectRefused, "EntityTooLarge"),
        ("413", 413, ObjectRefused, "413"),
        ("InvalidArgument", 400, ObjectRefused, "InvalidArgument"),
        ("412", 412, ObjectRefused, "412"),
        ("BadDigest", 400, StorageUnavailable, "damaged on the way"),
        ("XAmzContentSHA256Mismatch", 400, StorageUnavailable, "damaged on the way"),
        ("ConditionalRequestConflict", 409, StorageUnavailable, "Waiting"),
        ("MissingContentLength", 411, StorageMisconfigured, "S3_ENDPOINT_URL"),
        ("", 0, StorageError, "refused"),
    ],
)
def test_each_answer_keeps_its_meaning(code: str, status: int, kind: type[StorageError], said: str) -> None:
    error = refusal(answer(code, status), "put", "s3://b/k", "none")
    assert type(error) is kind
    assert said in str(error)


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("NotImplemented", 501, ""),
        ("InvalidArgument", 400, "The encryption method specified is not supported"),
        ("KMS.NotFoundException", 400, "key"),
        ("InvalidRequest", 400, ""),
        ("InvalidRequest", 400, "Server Side Encryption with AWS KMS managed keys requires HTTPS"),
    ],
)
def test_refused_encryption_names_the_switch(code: str, status: int, message: str) -> None:
    error = refusal(answer(code, status, message), "put", "s3://b/k", "AES256")
    assert isinstance(error, StorageMisconfigured)
    assert "S3_SERVER_SIDE_ENCRYPTION=none" in str(error)


@given(st.dictionaries(st.text(max_size=30), st.none() | st.text() | st.integers() | st.floats(), max_size=30))
def test_metadata_fits_into_headers(values: dict[str, object]) -> None:
    metadata = object_metadata({**values, "sha256": "f" * 64})
    assert metadata["sha256"] == "f" * 64
    assert sum(len(name) + len(value) for name, value in metadata.items()) <= MAX_TOTAL_BYTES
    assert all((name + value).isascii() and value.isprintable() for name, value in metadata.items())
