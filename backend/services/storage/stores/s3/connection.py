"""S3Connection: one bucket, the clients that reach it, and what every object that is written to it carries."""

from __future__ import annotations

import threading
from typing import Any

from backend.errors import InvalidInput, ObjectMissing, StorageMisconfigured
from backend.services.storage.config import StorageConfig
from backend.services.storage.stores.s3.client import S3Clients, open_clients
from backend.services.storage.stores.s3.errors import s3_errors

SCHEME = "s3://"


class S3Connection:
    """Opens nothing before the first call. Several adapters may share one.

    Attributes:
        config: how the bucket is reached.
        bucket: its name.
    """

    def __init__(self, config: StorageConfig) -> None:
        if not config.s3_bucket_name:
            raise StorageMisconfigured("S3_BUCKET_NAME is not set.")
        self.config = config
        self.bucket = config.s3_bucket_name
        self._opened: S3Clients | None = None
        self._opening = threading.Lock()

    def clients(self) -> S3Clients:
        """Open once. A failure is not remembered, so credentials that appear later are found. Blocks.

        Raises:
            StorageMisconfigured: as in `open_clients`.
        """
        with self._opening:
            if self._opened is None:
                self._opened = open_clients(self.config)
            return self._opened

    @property
    def objects(self) -> Any:
        """The client for objects. Errors as in `clients`."""
        return self.clients().objects

    @property
    def encryption(self) -> dict[str, Any]:
        """The arguments of a write that ask for the configured server-side encryption."""
        wanted = self.config.s3_server_side_encryption
        return {} if wanted == "none" else {"ServerSideEncryption": wanted}

    def locator(self, full_key: str) -> str:
        """The locator of a key in this bucket, prefix included."""
        return f"{SCHEME}{self.bucket}/{full_key}"

    def head(self, bucket: str, full_key: str) -> dict[str, Any]:
        """Ask for an object's size, ETag and metadata. Blocks.

        Raises:
            StorageError: it is missing, or the store refuses or does not answer.
        """
        with s3_errors("get", f"{SCHEME}{bucket}/{full_key}"):
            head: dict[str, Any] = self.objects.head_object(Bucket=bucket, Key=full_key)
            return head

    def get_head(self, locator: str) -> dict[str, Any]:
        """As `head`, with the reason of a refusal in words."""
        bucket, full_key = split_locator(locator)
        try:
            return self.head(bucket, full_key)
        except (ObjectMissing, StorageMisconfigured):
            self.ask_again_in_words(bucket, full_key)
            raise

    def ask_again_in_words(self, bucket: str, full_key: str) -> None:
        """A refused HEAD has no body. GET says whether object or bucket is missing, and why access is denied."""
        with s3_errors("get", f"{SCHEME}{bucket}/{full_key}"):
            self.objects.get_object(Bucket=bucket, Key=full_key)["Body"].close()

    def close(self) -> None:
        """Free the connections; the next call opens them anew."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def split_locator(locator: str) -> tuple[str, str]:
    """Return bucket and key. Any bucket: rows outlive a change of S3_BUCKET_NAME.

    Raises:
        InvalidInput: it is no locator of S3.
    """
    bucket, _, key = locator.removeprefix(SCHEME).partition("/")
    if not locator.startswith(SCHEME) or not bucket or not key:
        raise InvalidInput(f"{locator[:200]!r} is not an S3 object.")
    return bucket, key


def version_of(head: dict[str, Any]) -> str:
    """The ETag: a name for the bytes, the same until they are replaced."""
    return str(head.get("ETag", "")).strip('"')
