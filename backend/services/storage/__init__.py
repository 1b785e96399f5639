"""Where recordings, transcripts and metadata are kept: one service over a local folder and S3."""

from backend.services.storage.config import StorageConfig
from backend.services.storage.placement.info import StorageInfo
from backend.services.storage.placement.mover import Mover, VerifiedFile
from backend.services.storage.placement.parts import StorageParts
from backend.services.storage.placement.stores import Stores
from backend.services.storage.port import DirectUploads, ObjectStore
from backend.services.storage.service import StorageService
from backend.services.storage.values import (
    Access,
    Expected,
    ListedObject,
    LocalFile,
    PresignedUrl,
    SpooledFile,
    StoredObject,
    StoreTraits,
    Stream,
    UnfinishedMultipart,
    UploadedPart,
)

__all__ = [
    "Access",
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
    "StorageParts",
    "StorageService",
    "StoreTraits",
    "StoredObject",
    "Stores",
    "Stream",
    "UnfinishedMultipart",
    "UploadedPart",
    "VerifiedFile",
]
