"""Recordings that were accepted and wait for their job: complete files in the spool that outlive the process.

The receiver of an upload holds a lock on its file until a job's row names it. So a file that is neither locked nor
named was left by a process that died in between.
"""

from __future__ import annotations

from pathlib import Path

from backend.concurrency.lanes import ThreadLane
from backend.errors import ObjectMissing
from backend.services.storage.files import disk_errors, is_locked, make_own_folder, refuse_links, sync_folder
from backend.services.storage.spool.folder import SpoolFolder
from backend.services.storage.values import SpooledFile


class AcceptedRecordings:
    """Files under UPLOAD_DIR/.spool/kept, named by their owners; a name is used once."""

    def __init__(self, upload_dir: Path, lane: ThreadLane) -> None:
        self._root = upload_dir.absolute()
        self._files = SpoolFolder(self._root / ".spool" / "kept", self._root, lane)
        self._folder = self._files.path
        self._lane = lane

    async def add(self, spooled: SpooledFile, name: str) -> SpooledFile:
        """Move a spool file here, durably. Its old path is free afterwards.

        Raises:
            StorageError: the disk refuses.
        """
        return await self._lane.run(self._keep, spooled, name)

    async def get(self, name: str, size_bytes: int, sha256: str) -> SpooledFile:
        """The file of that name.

        Raises:
            ObjectMissing: it is not on this machine.
        """
        return await self._lane.run(self._get, name, size_bytes, sha256)

    async def remove(self, name: str) -> None:
        """Delete a file; a missing one is no error."""
        await self._files.remove(name)

    async def names(self, older_than_s: float) -> list[str]:
        """List the files that are older than that and not locked."""
        return await self._files.names(older_than_s, spare=is_locked)

    def _keep(self, spooled: SpooledFile, name: str) -> SpooledFile:
        target = self._folder / name
        with disk_errors(target):
            make_own_folder(self._folder, self._root)
            spooled.path.rename(target)
            sync_folder(self._folder)
        return SpooledFile(target, spooled.size_bytes, spooled.sha256)

    def _get(self, name: str, size_bytes: int, sha256: str) -> SpooledFile:
        path = self._folder / name
        with disk_errors(path):
            refuse_links(path, self._root)
            if not path.is_file() or path.stat().st_size != size_bytes:
                raise ObjectMissing(
                    f"The recording {path} is not on this machine. Workers on several machines need a shared "
                    "UPLOAD_DIR, or S3."
                )
        return SpooledFile(path, size_bytes, sha256)
