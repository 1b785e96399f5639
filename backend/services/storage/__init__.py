"""Where recordings, transcripts and metadata are kept: one service over a local folder and S3."""

from backend.services.storage.base import (
    DirectUploads,
    Expected,
    ListedObject,
    LocalFile,
    ObjectStore,
    PresignedUrl,
    SpooledFile,
    StoredObject,
    UnfinishedUpload,
    UploadedPart,
)
from backend.services.storage.config import StorageConfig
from backend.services.storage.info import StorageInfo
from backend.services.storage.moving import Mover, VerifiedFile
from backend.services.storage.service import StorageService

__all__ = [
    "DirectUploads",
    "Expected",
    "ListedObject",
    "LocalFile",
    "Mover",
    "ObjectStore",
    "PresignedUrl",
    "SpooledFile",
    "StorageConfig",
    "StorageInfo",
    "StorageService",
    "StoredObject",
    "UnfinishedUpload",
    "UploadedPart",
    "VerifiedFile",
]
