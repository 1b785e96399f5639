"""Where recordings, transcripts and metadata are kept: one service over a local folder and S3."""

from backend.services.storage.config import StorageConfig
from backend.services.storage.placement.info import StorageInfo
from backend.services.storage.placement.mover import Mover, VerifiedFile
from backend.services.storage.port import DirectUploads, ObjectStore
from backend.services.storage.service import StorageService
from backend.services.storage.values import (
    Expected,
    ListedObject,
    LocalFile,
    PresignedUrl,
    SpooledFile,
    StoredObject,
    UnfinishedUpload,
    UploadedPart,
)

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
