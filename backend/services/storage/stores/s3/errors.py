"""What boto3 raises, translated once into StorageErrors that name the S3 code and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backend.errors import (
    ObjectMissing,
    ObjectRefused,
    StorageError,
    StorageFull,
    StorageMisconfigured,
    StorageUnavailable,
)

_DENIED = "The credentials need s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject on the bucket."
_REMEDIES = {
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "InvalidToken": "Check AWS_SESSION_TOKEN.",
    "ExpiredToken": "The session token has expired: provide new credentials.",
    "RequestTimeTooSkewed": "Set this machine's clock (NTP).",
    "RequestExpired": "Set this machine's clock (NTP).",
    "NoSuchBucket": "Create the bucket or correct S3_BUCKET_NAME.",
    "InvalidBucketName": "Correct S3_BUCKET_NAME.",
    "AuthorizationHeaderMalformed": "Set S3_REGION to the bucket's region.",
    "PermanentRedirect": "Set S3_REGION and S3_ENDPOINT_URL to where the bucket is.",
    "IllegalLocationConstraintException": "Set S3_REGION to the bucket's region.",
    "301": "Set S3_REGION and S3_ENDPOINT_URL to where the bucket is.",
    "AccessDenied": _DENIED,
    "AllAccessDisabled": "The store has disabled this bucket.",
    "AccountProblem": "The account is blocked at the provider.",
    "NotSignedUp": "The account is not set up for S3.",
    "MissingContentLength": "The store does not take AWS's own checksums; setting S3_ENDPOINT_URL leaves them out.",
    "MethodNotAllowed": "The store does not allow this; check S3_ENDPOINT_URL.",
}
_TRANSIENT = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
}
_DAMAGED = {
    "BadDigest",
    "IncompleteBody",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
"""The store did not get the bytes that were sent. They are fine here, so sending them again may help."""
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"}


@contextmanager
def s3_errors(action: str, target: str, *, encryption: str = "none") -> Iterator[None]:
    """Translate what boto3 raises inside the block.

    Args:
        action: the verb for the message: put, get, delete, check.
        target: what it was done to, a bucket or a locator.
        encryption: the server-side encryption asked for, so that a refusal of it can be recognised.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise refusal(error.response, action, target, encryption) from error
    except BotoCoreError as error:
        raise _no_answer(error, action, target) from error
    except Boto3Error as error:
        # The managed upload hides the store's answer in the context of its own error.
        answer = getattr(error.__context__, "response", {})
        raise refusal(answer, action, target, encryption) from error


def refusal(answer: dict[str, Any], action: str, target: str, encryption: str) -> StorageError:
    """Return the error for an answer of the store that is not a success."""
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = str(answer.get("Error", {}).get("Message") or "")
    said = f"S3 refused to {action} {target}: {code or status} {message}".rstrip(". ")
    if encryption != "none" and _is_about_encryption(message, code, status):
        return StorageMisconfigured(
            f"{said}. It does not take the server-side encryption {encryption}: "
            "set S3_SERVER_SIDE_ENCRYPTION=none if that is acceptable."
        )
    if code in _REMEDIES:
        return StorageMisconfigured(f"{said}. {_REMEDIES[code]}")
    if code == "NoSuchKey" or status == 404:
        return ObjectMissing(f"{target} is not in S3 ({code or status}).")
    if code in _FULL or status == 507:
        return StorageFull(f"{said}. Free space or raise the quota at the provider.")
    if status == 501:
        return StorageMisconfigured(f"{said}. The store does not implement this request.")
    if code in _DAMAGED:
        return StorageUnavailable(f"{said}. The bytes were damaged on the way: look at the network and the store.")
    if code in _TRANSIENT or status >= 500 or status == 429:
        return StorageUnavailable(f"{said}. Waiting may help.")
    if status in {401, 403}:
        return StorageMisconfigured(f"{said}. {_DENIED}")
    if 400 <= status < 500:
        return ObjectRefused(f"{said}.")
    return StorageError(f"{said}.")


def _is_about_encryption(message: str, code: str, status: int) -> bool:
    named = "encrypt" in message.lower() or code.startswith("KMS") or "sse" in code.lower()
    # Ceph refuses the header on plain HTTP without a word of explanation.
    mute = code in {"InvalidRequest", "InvalidArgument"} and not message
    return status == 501 or ((named or mute) and 400 <= status < 500)


def _no_answer(error: Exception, action: str, target: str) -> StorageError:
    from botocore import exceptions as boto

    said = f"S3 could not be asked to {action} {target}: {error}".rstrip(". ")
    if isinstance(error, boto.SSLError):
        return StorageMisconfigured(f"{said}. Check the certificate, or set AWS_CA_BUNDLE to your own authority.")
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)):
        return StorageUnavailable(f"{said}. Is the store up, and S3_ENDPOINT_URL right?", answered=False)
    return StorageMisconfigured(f"{said}. Check the S3 settings and credentials.")
