"""Every error Aperta raises on purpose. Knows no HTTP: `backend/api/problems.py` maps the tree to status codes.

AppError
├── InvalidInput            the request makes no sense (wrong value, wrong combination)
│   └── InvalidAudio        the bytes are no recording that can be processed
│       ├── UnsupportedMedia    not audio or video at all, or a codec that cannot be read
│       └── EmptyAudio          no bytes, or no samples
├── TooLarge                more bytes or more decoded seconds than allowed
├── NotFound                no such conversation, object or model
├── Conflict                it is there, but not in a state that allows this
├── ObjectExists            a write-once key is taken
├── StorageError            a store said no; which kind matters to the reader
│   ├── ObjectMissing           the store answers, the object is not there
│   ├── StorageMisconfigured    credentials, bucket, permissions: waiting does not help
│   ├── StorageUnavailable      unreachable, 5xx, timeout: waiting may help
│   └── StorageFull             no space left
├── DatabaseUnavailable     the database does not answer or refuses; waiting may help
├── ProcessingFailed        the pipeline broke on a good recording, which is kept; carries its conversation_id
└── EngineUnavailable       an engine cannot be loaded; the message says what fetches it
"""

from __future__ import annotations


class AppError(Exception):
    """Base of the tree. The message is one sentence for the user: cause first, then remedy."""


class InvalidInput(AppError):
    pass


class InvalidAudio(InvalidInput):
    pass


class UnsupportedMedia(InvalidAudio):
    pass


class EmptyAudio(InvalidAudio):
    pass


class TooLarge(AppError):
    pass


class NotFound(AppError):
    pass


class Conflict(AppError):
    pass


class ObjectExists(AppError):
    pass


class StorageError(AppError):
    pass


class ObjectMissing(StorageError):
    pass


class StorageMisconfigured(StorageError):
    pass


class StorageUnavailable(StorageError):
    pass


class StorageFull(StorageError):
    pass


class EngineUnavailable(AppError):
    pass


class DatabaseUnavailable(AppError):
    pass


class ProcessingFailed(AppError):
    def __init__(self, message: str, conversation_id: str) -> None:
        super().__init__(message)
        self.conversation_id = conversation_id
