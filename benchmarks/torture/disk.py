"""A small disk that may be filled, made read-only, and lose power: ext4 in a file, mounted over a loop device.

Needs root. A power loss is a copy of that file, taken while the processes that write to it are stopped: what they had
not made durable is in the kernel's memory and not in the copy. Then the copy is mounted, and the journal replayed.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import subprocess
import tempfile
import time
from pathlib import Path

from backend.services.storage.files import sync_folder

MIB = 1024 * 1024
SIZE_BYTES = 192 * MIB


class Disk:
    """A folder with a file system of its own.

    Args:
        folder: where the image and the mount points are.
    """

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.img"
        self.root = folder / "disk"
        self.uploads = folder / "uploads"
        self._ballast = self.root / "ballast"

    def open(self) -> None:
        with self._image.open("wb") as image:
            image.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
        self.root.mkdir()
        self.uploads.mkdir()
        self._mount()

    def close(self) -> None:
        self._unmount()
        self._image.unlink()

    def fill(self, leave_bytes: int) -> None:
        """Leave this much room."""
        with self._ballast.open("wb") as file:
            while (size := self._free_bytes() - leave_bytes) > 0:
                # The file system needs some for itself, and others write meanwhile.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), max(4096, size * 3 // 4))
                if size < 8192:
                    break

    def _free_bytes(self) -> int:
        free = os.statvfs(self.root)
        return free.f_bavail * free.f_frsize

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)
        sync_folder(self.root)  # ext4 gives the room back when its journal is written

    def make_read_only(self, seconds: float = 2.0) -> bool:
        """Refuse writes to `uploads`. Whether it worked: not while somebody is writing."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done = subprocess.run(["mount", "-o", "remount,bind,ro", self.uploads], capture_output=True)
            if done.returncode == 0:
                return True
            time.sleep(0.01)
        return False

    def make_writable(self) -> None:
        _run("mount", "-o", "remount,bind,rw", str(self.uploads))

    def lose_power(self) -> None:
        """Go on with what `snapshot` copied. Whoever wrote must be dead."""
        self._unmount()
        self._image.with_suffix(".copy").replace(self._image)
        self._mount()

    def snapshot(self) -> None:
        """Copy the image as it is at one instant: until two copies, one after the other, are equal.

        Whoever writes must be stopped; the kernel may still be writing.
        """
        copy, again = self._image.with_suffix(".copy"), self._image.with_suffix(".again")
        _copy(self._image, copy)
        for _ in range(50):
            _copy(self._image, again)
            if filecmp.cmp(copy, again, shallow=False):
                again.unlink()
                return
            again.replace(copy)
        raise RuntimeError("the disk does not come to rest")

    def _mount(self) -> None:
        _run("mount", "-o", "loop,discard", str(self._image), str(self.root))
        (self.root / "uploads").mkdir(exist_ok=True)
        _run("mount", "--bind", str(self.root / "uploads"), str(self.uploads))

    def _unmount(self) -> None:
        for path in (self.uploads, self.root):
            end = time.monotonic() + 10
            while subprocess.run(["umount", path], capture_output=True).returncode:
                if time.monotonic() > end:
                    _run("umount", "-l", str(path))
                    break
                time.sleep(0.02)


class Folder:
    """The same without a file system of its own, for those who are not root: it can neither fill nor fail."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "disk"
        self.uploads = self.root / "uploads"

    def open(self) -> None:
        self.uploads.mkdir(parents=True)

    def close(self) -> None:
        return None


def can_mount(folder: Path) -> bool:
    """Whether this user may have disks of that kind here."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(dir=folder) as trial:
        disk = Disk(Path(trial))
        try:
            disk.open()
            disk.close()
        except (OSError, subprocess.CalledProcessError):
            return False
    return True


def _copy(source: Path, target: Path) -> None:
    _run("cp", "--sparse=always", str(source), str(target))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
