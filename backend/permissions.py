"""What other users of this machine may see: the mode of new files, core dumps, files that an older version left open.

Nothing here follows a symbolic link, and a file of another user's is named, not changed.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

UMASK = 0o077
OTHERS = 0o077
"""What group and others may do."""
_PR_SET_DUMPABLE = 4
_SHARED = (
    "%s (%s) stays open to other users of this machine, because other programs use it%s. What Aperta made in it is "
    "closed. A folder of its own would also hide the names"
)


def close_process() -> None:
    """Have this process and its children make files that only their user may read, and never leave a core dump.

    A limit of 0 does not hold for a dump that the system pipes to a program, and being undumpable ends with the next
    `exec`: each of the two covers what the other leaves.
    """
    os.umask(UMASK)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def close_files(paths: Iterable[Path]) -> None:
    """Take files from group and others; those that do not exist are passed over."""
    outcome = _Outcome()
    for path in paths:
        outcome.add(_close(str(path)), path)
    outcome.log()


def close_folder(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Take from group and others what Aperta made in a folder; files of other programs keep their rights.

    The folder itself, too, unless other programs use it. Each folder comes after what is in it: once it is closed all
    below is, and the next start need not look there.

    Args:
        folder: may be a symbolic link; those below it are left alone.
        is_ours: whether Aperta makes files or folders of this name, relative to the folder.
    """
    root = folder.resolve()
    try:
        mode = root.stat().st_mode
        names = sorted(path.name for path in root.iterdir()) if stat.S_ISDIR(mode) and mode & OTHERS else None
    except OSError:
        return  # the storage service says what is wrong with it
    if names is None:
        return
    outcome = _Outcome()
    for name in filter(is_ours, names):
        _close_tree(root, name, is_ours, outcome)
    foreign = [name for name in names if not is_ours(name) and _is_shared(root / name)]
    if foreign or mode & stat.S_ISVTX:
        logger.warning(_SHARED, root, stat.filemode(mode), f", such as {foreign[0]}" if foreign else "")
    else:
        outcome.add(_close(str(root)), root)
    outcome.log()


@dataclass(slots=True)
class _Outcome:
    changed: int = 0
    others: int = 0
    example: Path | None = None

    def add(self, changed: bool | None, path: Path) -> None:
        """`changed`: as `_close` says."""
        if changed is None:
            self.others += 1
            self.example = self.example or path
        else:
            self.changed += changed

    def log(self) -> None:
        if self.changed:
            logger.info(
                "%d files and folders were open to other users of this machine and are closed now", self.changed
            )
        if self.others:
            logger.warning(
                "%d files and folders stay open to other users: they belong to another user or are links, such as %s",
                self.others,
                self.example,
            )


def _close_tree(root: Path, name: str, is_ours: Callable[[str], bool], outcome: _Outcome) -> None:
    """Close what Aperta made at and below a name, unless the name is closed already."""
    top = root / name
    try:
        mode = top.lstat().st_mode
    except OSError:
        return
    if not mode & OTHERS:
        return
    if stat.S_ISDIR(mode):
        for place, changed in _close_below(root, name, is_ours):
            outcome.add(changed, place)
    outcome.add(_close(str(top)), top)


def _close_below(root: Path, name: str, is_ours: Callable[[str], bool]) -> Iterator[tuple[Path, bool | None]]:
    for place, folders, files, descriptor in os.fwalk(root / name, follow_symlinks=False):
        inside = Path(place).relative_to(root).as_posix()
        folders[:] = [folder for folder in folders if is_ours(f"{inside}/{folder}")]
        for found in (*folders, *(file for file in files if is_ours(f"{inside}/{file}"))):
            yield Path(place, found), _close(found, descriptor)


def _is_shared(path: Path) -> bool:
    """Whether something is there that other users can reach; an empty file, such as .gitkeep, is of no use to them."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return bool(found.st_mode & OTHERS) and not (stat.S_ISREG(found.st_mode) and found.st_size == 0)


def _close(name: str, folder: int | None = None) -> bool | None:
    """Returns whether it had to be changed; None: it should be and cannot."""
    try:
        # Not opened for reading: closing that would drop the locks that SQLite has on it in this process.
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or not mode & OTHERS:
            return False
        Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IMODE(mode) & ~OTHERS)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return True
