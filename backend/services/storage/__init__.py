"""Where recordings, transcripts and metadata are kept: one service over a local folder and S3."""

from backend.services.storage.base import LocalFile, ObjectStore, PresignedUrl, SpooledFile, StoredObject
from backend.services.storage.config import StorageConfig
from backend.services.storage.info import StorageInfo
from backend.services.storage.service import StorageService

__all__ = [
    "LocalFile",
    "ObjectStore",
    "PresignedUrl",
    "SpooledFile",
    "StorageConfig",
    "StorageInfo",
    "StorageService",
    "StoredObject",
]
