"""Space on the local disk: below a soft limit it is warned of, below a hard one uploads are refused. Sync; in threads.

What is left below the hard limit is for the rest: the database, accepted recordings, and saves that fall back.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Literal

from backend.errors import StorageFull

logger = logging.getLogger(__name__)

SpaceState = Literal["ok", "low", "full"]


class DiskSpace:
    """How full the disk of a folder is, as of the last look.

    Args:
        folder: anywhere on the disk; need not exist yet.
        soft_bytes: with less free space than this it is low.
        hard_bytes: with less free space than this it is full, for uploads.

    Attributes:
        state: ok, low or full.
        free_bytes: None when it cannot be known.
    """

    def __init__(self, folder: Path, *, soft_bytes: int, hard_bytes: int) -> None:
        self._folder = folder.absolute()
        self._soft_bytes = max(soft_bytes, hard_bytes)
        self._hard_bytes = hard_bytes
        self.state: SpaceState = "ok"
        self.free_bytes: int | None = None

    def look(self) -> None:
        """Measure. A change of state is logged, once."""
        self.free_bytes = _free_bytes(self._folder)
        before, self.state = self.state, self._state_of(self.free_bytes)
        if self.state != before:
            self._log_change()

    def measure(self) -> int | None:
        """Look, and return the free bytes."""
        self.look()
        return self.free_bytes

    def check(self, needed_bytes: int | None = None, promised_bytes: int = 0) -> None:
        """Measure, and do nothing if an upload may come.

        Args:
            needed_bytes: its size, if known.
            promised_bytes: what is still to come of others.

        Raises:
            StorageFull: it may not; uploads are taken again as soon as there is space.
        """
        self.look()
        free_bytes = self.free_bytes
        if free_bytes is None or free_bytes - (needed_bytes or 0) - promised_bytes >= self._hard_bytes:
            return
        wish = f" for an upload of {_mib(needed_bytes)}" if needed_bytes else ""
        others = f"{_mib(promised_bytes)} are promised to other uploads, " if promised_bytes else ""
        raise StorageFull(
            f"The disk of UPLOAD_DIR has not enough space{wish}: {_mib(free_bytes)} are free, {others}"
            f"{_mib(self._hard_bytes)} stay free for recordings in work. "
            "Free space, move UPLOAD_DIR or lower DISK_HARD_LIMIT_BYTES."
        )

    def spare(self) -> int | None:
        """Look, and return the bytes that uploads may fill; None when that cannot be known."""
        free_bytes = self.measure()
        return None if free_bytes is None else max(0, free_bytes - self._hard_bytes)

    def _state_of(self, free_bytes: int | None) -> SpaceState:
        if free_bytes is None or free_bytes >= self._soft_bytes:
            return "ok"
        return "low" if free_bytes >= self._hard_bytes else "full"

    def _log_change(self) -> None:
        free = _mib(self.free_bytes or 0)
        if self.state == "full":
            logger.error("the disk of UPLOAD_DIR is full: %s are free, uploads are refused until there is space", free)
        elif self.state == "low":
            logger.warning(
                "the disk of UPLOAD_DIR fills: %s are free, below %s uploads are refused", free, _mib(self._hard_bytes)
            )
        else:
            logger.info("the disk of UPLOAD_DIR has space again: %s are free", free)


def _free_bytes(folder: Path) -> int | None:
    for existing in (folder, *folder.parents):
        try:
            return shutil.disk_usage(existing).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.1f} MiB"
