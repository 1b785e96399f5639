"""Recordings that were accepted and wait for their job: complete files in the spool that outlive the process.

Whoever receives an upload holds a lock on it until somebody has written down that it is kept. So a file that is not
locked, and that nobody has written down, was left by a process that died in between.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from backend.concurrency.lanes import ThreadLane
from backend.errors import ObjectMissing
from backend.services.storage.files import disk_errors, is_locked, make_own_folder, refuse_links, sync_folder
from backend.services.storage.values import SpooledFile


class AcceptedRecordings:
    """Files under UPLOAD_DIR/.spool/kept, each named as its owner likes; a name is used once."""

    def __init__(self, upload_dir: Path, lane: ThreadLane) -> None:
        self._root = upload_dir.absolute()
        self._folder = self._root / ".spool" / "kept"
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
        """Delete a file; one that is already gone is no error."""
        await self._lane.run(self._remove, name)

    async def names(self, older_than_s: float) -> list[str]:
        """Every file that has been here for so long and that nobody holds."""
        return await self._lane.run(self._names, older_than_s)

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

    def _remove(self, name: str) -> None:
        refuse_links(self._folder, self._root)
        with disk_errors(self._folder / name):
            (self._folder / name).unlink(missing_ok=True)

    def _names(self, older_than_s: float) -> list[str]:
        refuse_links(self._folder, self._root)
        if not self._folder.is_dir():
            return []
        oldest = time.time() - older_than_s
        with disk_errors(self._folder), os.scandir(self._folder) as entries:
            own = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
            return sorted(entry.name for entry in own if entry.stat().st_ctime <= oldest and not is_locked(entry))
