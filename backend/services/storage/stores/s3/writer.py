"""S3Writer: write-once PUTs into one bucket, stopped in time, and confirmed by a look at what the store has."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

from backend.errors import ObjectExists, ObjectMissing, StorageError, StorageMisconfigured, StorageUnavailable
from backend.services.storage.files import disk_errors
from backend.services.storage.keys import PREFIXES, validated_key
from backend.services.storage.stores.s3.client import MULTIPART_THRESHOLD_BYTES, transfer_config
from backend.services.storage.stores.s3.connection import S3Connection, version_of
from backend.services.storage.stores.s3.errors import s3_errors
from backend.services.storage.stores.s3.metadata import object_metadata
from backend.services.storage.values import GiveUp, NewObject, SpooledFile, StoredObject

logger = logging.getLogger(__name__)


class S3Writer:
    """Write-once is HEAD before PUT and a look at the hash after it, guarded within this process: conditional writes
    differ too much between vendors to rely on. Across processes it rests on conversation ids being unique.
    """

    def __init__(self, connection: S3Connection) -> None:
        self._connection = connection
        self._bucket = connection.bucket
        self._guard = threading.Lock()
        self._keys_in_flight: set[str] = set()

    def put(self, new: NewObject, store: str, give_up: GiveUp | None) -> StoredObject:
        """As `ObjectStore.put`, for the store of this name; blocks."""
        key, give_up = PREFIXES[new.kind] + validated_key(new.key), give_up or _go_on
        if (error := give_up()) is not None:
            raise error
        self._reserve(key)
        try:
            if not self._exists(key):
                self._send(new, key, give_up)
            elif new.move is None or not self._has_same(new.spooled, key):
                raise ObjectExists(f"{self._connection.locator(key)} exists already.")
            version, warnings = self._confirm(new.spooled, key)
        finally:
            self._keys_in_flight.discard(key)
        size_bytes, sha256 = new.spooled.size_bytes, new.spooled.sha256
        locator = self._connection.locator(key)
        return StoredObject(locator, store, new.key, new.kind, size_bytes, sha256, new.content_type, warnings, version)

    def _reserve(self, key: str) -> None:
        with self._guard:
            if key in self._keys_in_flight:
                raise ObjectExists(f"{self._connection.locator(key)} is being written.")
            self._keys_in_flight.add(key)

    def _send(self, new: NewObject, key: str, give_up: GiveUp) -> None:
        encryption, locator = self._connection.config.s3_server_side_encryption, self._connection.locator(key)
        try:
            with disk_errors(new.spooled.path), s3_errors("put", locator, encryption=encryption):
                self._send_file(new, key, give_up)
        except StorageError as error:
            # What stopped the sending comes back as an error of the SDK.
            raise give_up() or error from error

    def _send_file(self, new: NewObject, key: str, give_up: GiveUp) -> None:
        spooled, max_bytes_per_s = new.spooled, new.move.max_bytes_per_s if new.move else 0
        headers = object_metadata({**new.metadata, "sha256": spooled.sha256})
        extra = self._connection.encryption | {"ContentType": new.content_type, "Metadata": headers}
        if spooled.size_bytes > MULTIPART_THRESHOLD_BYTES or (max_bytes_per_s and spooled.size_bytes):
            self._connection.objects.upload_file(
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
            self._connection.objects.put_object(Bucket=self._bucket, Key=key, Body=file, **extra)

    def _confirm(self, spooled: SpooledFile, key: str) -> tuple[str, tuple[str, ...]]:
        """Look at what the store has now: its size and hash must be ours, and the encryption what was asked for.

        Returns:
            The object's version, and warnings.
        """
        head, locator = self._connection.head(self._bucket, key), self._connection.locator(key)
        if head["ContentLength"] != spooled.size_bytes:
            raise StorageUnavailable(f"S3 holds {head['ContentLength']} of {spooled.size_bytes} bytes of {locator}.")
        names = {name.lower(): value for name, value in head["Metadata"].items()}
        if names.get("sha256", spooled.sha256) != spooled.sha256:
            raise ObjectExists(f"Another process wrote {locator} at the same moment.")
        wanted, got = self._connection.config.s3_server_side_encryption, head.get("ServerSideEncryption")
        if wanted == "none" or got == wanted:
            return version_of(head), ()
        warning = f"S3 did not confirm the server-side encryption {wanted} (it says {got or 'nothing'})."
        logger.warning("%s %s", warning, locator)
        return version_of(head), (warning,)

    def _exists(self, key: str) -> bool:
        try:
            self._connection.head(self._bucket, key)
        except ObjectMissing:
            return False
        except StorageMisconfigured:
            self._connection.ask_again_in_words(self._bucket, key)
            raise
        return True

    def _has_same(self, spooled: SpooledFile, key: str) -> bool:
        """Whether the object under a key was written from the same bytes, as far as it says so itself."""
        head = self._connection.head(self._bucket, key)
        names = {name.lower(): value for name, value in head["Metadata"].items()}
        return bool(head["ContentLength"] == spooled.size_bytes and names.get("sha256") == spooled.sha256)


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
