"""SpoolFolder: one folder below UPLOAD_DIR/.spool, whose files have the names that their owners gave them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from backend.concurrency.lanes import ThreadLane
from backend.services.storage.files import disk_errors, refuse_links


class SpoolFolder:
    """
    Args:
        path: the folder; need not exist yet.
        root: UPLOAD_DIR; no folder below it may be a symbolic link.
        lane: the threads for disk work.
    """

    def __init__(self, path: Path, root: Path, lane: ThreadLane) -> None:
        self.path = path
        self._root = root
        self._lane = lane

    async def remove(self, name: str) -> None:
        """Delete a file; a missing one is no error.

        Raises:
            StorageError: the disk refuses.
        """
        await self._lane.run(self._remove, name)

    async def names(
        self, older_than_s: float, *, spare: Callable[[os.DirEntry[str]], bool] = lambda _: False
    ) -> list[str]:
        """List the files that have not changed for a while.

        Args:
            older_than_s: since when, counted from now.
            spare: whether to leave a file out.

        Raises:
            StorageError: the folder cannot be read.
        """
        return await self._lane.run(self._names, older_than_s, spare)

    def _remove(self, name: str) -> None:
        refuse_links(self.path, self._root)
        with disk_errors(self.path / name):
            (self.path / name).unlink(missing_ok=True)

    def _names(self, older_than_s: float, spare: Callable[[os.DirEntry[str]], bool]) -> list[str]:
        refuse_links(self.path, self._root)
        if not self.path.is_dir():
            return []
        oldest = time.time() - older_than_s
        with disk_errors(self.path), os.scandir(self.path) as entries:
            own = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
            return sorted(entry.name for entry in own if entry.stat().st_ctime <= oldest and not spare(entry))
