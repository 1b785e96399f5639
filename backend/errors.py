"""Every error Aperta raises on purpose. Knows no HTTP: `backend/api/problems.py` maps the tree to status codes.

AppError
├── InvalidInput            the request makes no sense (wrong value, wrong combination)
│   ├── ChecksumMismatch        the bytes are not those that were sent
│   ├── InvalidAudio        the bytes are no recording that can be processed
│   │   ├── UnsupportedMedia    not audio or video at all, or a codec that cannot be read
│   │   └── EmptyAudio          no bytes, or no samples
│   ├── ModelMissing        the model asked for is not on this disk; it may be on another machine's
│   └── NewerManifest       written by a newer Aperta; not to be judged by this one
├── TooLarge                more bytes or more decoded seconds than allowed
├── NotFound                no such conversation, object or model
│   └── UploadExpired           there was one; what arrived of it is deleted
├── Conflict                it is there, but not in a state that allows this
│   └── UploadInUse             another request is writing to it; waiting helps
├── ObjectExists            a write-once key is taken
├── TooManyJobs             the queue is full; waiting helps
├── ShareUsedUp             one caller holds as much as it may; giving something back helps
├── StorageError            a store said no; which kind matters to the reader
│   ├── ObjectMissing           the store answers, the object is not there
│   ├── ObjectCorrupt           it is there, and not what was saved
│   ├── ObjectRefused           the store takes others, not this one: too large, a name it does not like
│   ├── StorageMisconfigured    credentials, bucket, permissions: waiting does not help
│   ├── StorageUnavailable      unreachable, 5xx, timeout: waiting may help; knows whether the store answered at all
│   └── StorageFull             no space left
├── DatabaseUnavailable     the database does not answer or refuses; waiting may help
├── MigrationsMissing       the installation is incomplete: nothing can make or change the database's tables
├── RemoteUnavailable       a server that a user named does not answer, or fails; waiting may help
├── ProcessingFailed        the pipeline broke on a good recording, which is kept; carries its conversation_id
└── EngineUnavailable       an engine cannot be loaded; the message says what fetches it
"""

from __future__ import annotations


class AppError(Exception):
    """Base of the tree. The message is one sentence for the user: cause first, then remedy."""


class InvalidInput(AppError):
    pass


class ChecksumMismatch(InvalidInput):
    pass


class InvalidAudio(InvalidInput):
    pass


class UnsupportedMedia(InvalidAudio):
    pass


class EmptyAudio(InvalidAudio):
    pass


class ModelMissing(InvalidInput):
    pass


class NewerManifest(InvalidInput):
    pass


class TooLarge(AppError):
    pass


class NotFound(AppError):
    pass


class UploadExpired(NotFound):
    pass


class Conflict(AppError):
    pass


class UploadInUse(Conflict):
    pass


class ObjectExists(AppError):
    pass


class TooManyJobs(AppError):
    pass


class ShareUsedUp(AppError):
    pass


class StorageError(AppError):
    pass


class ObjectMissing(StorageError):
    pass


class ObjectCorrupt(StorageError):
    pass


class ObjectRefused(StorageError):
    pass


class StorageMisconfigured(StorageError):
    pass


class StorageUnavailable(StorageError):
    """
    Attributes:
        answered: whether the store said so itself.
        retry_in_s: when the store is asked next, if that is known.
    """

    retry_in_s: float | None = None

    def __init__(self, message: str, *, answered: bool = True) -> None:
        super().__init__(message)
        self.answered = answered


class StorageFull(StorageError):
    pass


class EngineUnavailable(AppError):
    pass


class DatabaseUnavailable(AppError):
    pass


class MigrationsMissing(AppError):
    pass


class RemoteUnavailable(AppError):
    pass


class ProcessingFailed(AppError):
    def __init__(self, message: str, conversation_id: str) -> None:
        super().__init__(message)
        self.conversation_id = conversation_id

    def __reduce__(self) -> tuple[type[ProcessingFailed], tuple[str, str]]:
        return type(self), (str(self), self.conversation_id)


def _kinds(kind: type[AppError]) -> dict[str, type[AppError]]:
    found = {kind.__name__: kind}
    for child in kind.__subclasses__():
        found |= _kinds(child)
    return found


KINDS = _kinds(AppError)
"""Every kind by its name."""
