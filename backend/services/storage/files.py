"""The local file system as storage needs it: durable steps, and OSError translated once. Sync; runs in threads."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import (
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageMisconfigured,
    StorageUnavailable,
)

CHUNK_BYTES = 1024 * 1024
"""One thread hop moves this much: small enough for memory, large enough that the hop costs nothing."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_NOT_A_FOLDER = {errno.ENOTDIR, errno.EEXIST}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.ENOSYS, errno.EMLINK}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate what the file system says about a path into a StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the StorageError that says what an OSError means for operators and users."""
    cause = f"{error.filename or path}: {error.strerror or error}"
    if error.errno in _FULL:
        return StorageFull(f"No space left to store this ({cause}). Free space or move UPLOAD_DIR.")
    if error.errno in _FORBIDDEN:
        return StorageMisconfigured(
            f"Cannot write there ({cause}). Make UPLOAD_DIR writable for the user that runs Aperta, or change it."
        )
    if error.errno in _NOT_A_FOLDER:
        return StorageMisconfigured(f"UPLOAD_DIR must be a folder ({cause}).")
    if error.errno == errno.ENOENT:
        return ObjectMissing(f"There is no such file ({cause}).")
    return StorageUnavailable(f"The disk failed ({cause}).")


def make_folder(path: Path) -> None:
    """Create a folder and its parents so that they survive a power loss: each new entry's parent is fsynced."""
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    for folder in reversed(missing):
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError as error:  # its parent is there: the file system takes no folders, as /proc
            raise PermissionError(errno.EACCES, "no folder can be made there", str(folder)) from error
        sync_folder(folder.parent)


def refuse_links(path: Path, root: Path) -> None:
    """Do nothing if neither a path nor a folder between it and the root is a symbolic link; the root may be one.

    Raises:
        StorageMisconfigured: one of them is. Aperta makes none, so somebody put it there.
    """
    for place in (path, *path.parents):
        if place == root:
            return
        if place.is_symlink():
            raise StorageMisconfigured(
                f"{str(path)[:200]!r} leads out of its place in UPLOAD_DIR, because {place} is a symbolic link. Aperta "
                "follows none: remove it."
            )
    raise StorageMisconfigured(f"{str(path)[:200]!r} leads out of UPLOAD_DIR.")


def make_own_folder(path: Path, root: Path) -> None:
    """`make_folder` below a root, where no folder may be a symbolic link.

    Raises:
        StorageMisconfigured: one is.
    """
    refuse_links(path, root)
    make_folder(path)


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a descriptor of a file that is no symbolic link and no pipe to wait for.

    Raises:
        OSError: there is none, or it is another kind.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "no file", str(path))
    return descriptor


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place(source: Path, target: Path, root: Path) -> None:
    """Give a fsynced file a second, new name below the root, durably.

    A hard link costs no copy and, unlike a rename, fails when the name is taken. Where links are not possible the bytes
    are copied to a name that must be new.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy_to_new(source, target)
    # All the way up: another save may have made a parent a moment ago and not have synced it yet.
    for folder in target.parents:
        sync_folder(folder)
        if folder == root:
            break


def remove_empty_folders(path: Path, root: Path) -> None:
    """Remove a folder and its parents below the root, as far up as they are empty."""
    while path != root and root in path.parents:
        try:
            path.rmdir()
        except OSError:
            return
        path = path.parent


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        StorageError: it is missing, or cannot be read.
    """
    with disk_errors(path), path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(path: Path) -> int:
    """Lock a file until the returned descriptor is closed, or the process has ended in any way.

    Raises:
        OSError: it is locked already, or the file system knows no locks.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def is_locked(path: os.PathLike[str]) -> bool:
    """Whether a file is locked by any process that sees this disk; also true if that cannot be found out."""
    try:
        os.close(lock(Path(path)))
    except OSError:
        return True
    return False


def _copy_to_new(source: Path, target: Path) -> None:
    with os.fdopen(open_file(source), "rb") as reader, os.fdopen(new_file(target), "wb") as writer:
        try:
            shutil.copyfileobj(reader, writer, CHUNK_BYTES)
            writer.flush()
            os.fsync(writer.fileno())
        except BaseException:
            target.unlink()
            raise


def new_file(path: Path) -> int:
    """Open a descriptor for writing a file that must not exist yet and that only this user may read."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
