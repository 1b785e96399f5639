"""LocalMaintenance: sizes and listings of local files, for comparing them with the rows, and their quarantine."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from uuid import uuid4

from backend.concurrency.lanes import ThreadLane
from backend.errors import AppError, InvalidInput, ObjectMissing, StorageMisconfigured
from backend.services.storage.files import (
    disk_errors,
    make_own_folder,
    place,
    refuse_links,
    remove_empty_folders,
    storage_error,
    sync_folder,
)
from backend.services.storage.keys import distinct_key, validated_conversation_id, validated_key
from backend.services.storage.stores.local.paths import LocalPaths
from backend.services.storage.values import ListedObject, UnfinishedMultipart

QUARANTINE = ".quarantine"
_PER_HOP = 1000
"""Files per turn of a thread, so that the hop costs nothing."""


class LocalMaintenance:
    """Passes over symbolic links, hidden names and names that are not UTF-8: none of them is an object.

    Args:
        paths: where the files are.
        lane: the threads for disk work.
    """

    def __init__(self, paths: LocalPaths, lane: ThreadLane) -> None:
        self._paths = paths
        self._prefix = paths.prefix
        self._root = paths.root
        self._lane = lane

    async def find_sizes(self, locators: Sequence[str]) -> dict[str, int | AppError]:
        return await self._lane.run(self._find_sizes, locators)

    async def iterate(
        self, *, after: str | None = None, conversation_id: str | None = None
    ) -> AsyncIterator[ListedObject]:
        first = after.removeprefix(self._prefix).split("/") if after else []
        folder = validated_conversation_id(conversation_id) + "/" if conversation_id else ""
        if folder and first:
            first = first[1:] if first[0] + "/" == folder else []
        async for item in self._stream(_walk(self._root, folder, first), ""):
            yield item

    async def move_to_quarantine(self, locator: str) -> str:
        return await self._lane.run(self._quarantine, locator)

    async def iterate_quarantine(self) -> AsyncIterator[ListedObject]:
        refuse_links(self._root / QUARANTINE, self._root)
        async for item in self._stream(_walk(self._root / QUARANTINE, "", ()), f"{QUARANTINE}/"):
            yield item

    async def delete_quarantined(self, locator: str) -> None:
        await self._lane.run(self._delete_quarantined, locator)

    async def iterate_uploads(self) -> AsyncIterator[UnfinishedMultipart]:
        return
        yield  # an upload in parts needs a store that takes parts

    async def abort_upload(self, upload: UnfinishedMultipart) -> None:
        raise InvalidInput(f"{upload.locator[:200]!r} is no upload in parts.")

    def _find_sizes(self, locators: Sequence[str]) -> dict[str, int | AppError]:
        sizes: dict[str, int | AppError] = {}
        checked = {str(self._root)}
        for locator in locators:
            try:
                found = self._find(locator, checked)
            except (InvalidInput, StorageMisconfigured) as error:
                sizes[locator] = error
                continue
            if found and stat.S_ISREG(found.st_mode):
                sizes[locator] = found.st_size
        return sizes

    def _find(self, locator: str, checked: set[str]) -> os.stat_result | None:
        if locator.startswith(self._prefix):
            # Following no link is enough to know a size; resolving the whole path takes twenty times as long.
            path = f"{self._root}/{validated_key(locator.removeprefix(self._prefix))}"
            if (folder := path.rpartition("/")[0]) not in checked:
                refuse_links(Path(folder), self._root)
                checked.add(folder)
        else:
            path = str(self._paths.path(locator))
        try:
            return os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, Path(path)) from error

    async def _stream(self, files: Iterator[tuple[str, os.stat_result]], folder: str) -> AsyncIterator[ListedObject]:
        def take() -> list[tuple[str, os.stat_result]]:
            with disk_errors(self._root):
                return list(islice(files, _PER_HOP))

        while batch := await self._lane.run(take):
            for key, found in batch:
                # A rename changes the ctime alone, so this is when the file came to its place.
                came_at = datetime.fromtimestamp(found.st_ctime, UTC)
                yield ListedObject(f"{self._prefix}{folder}{key}", key, found.st_size, came_at)

    def _quarantine(self, locator: str) -> str:
        source = self._paths.path(locator)
        key = source.relative_to(self._root).as_posix()
        with disk_errors(source):
            if not source.is_file():
                raise ObjectMissing(f"{locator} is not in local storage.")
            key = self._place_in_quarantine(source, key)
            source.unlink()
            sync_folder(source.parent)
            remove_empty_folders(source.parent, self._root)
        return f"{self._prefix}{QUARANTINE}/{key}"

    def _place_in_quarantine(self, source: Path, key: str) -> str:
        target = self._root / QUARANTINE / key
        make_own_folder(target.parent, self._root)
        try:
            place(source, target, self._root)
        except FileExistsError:
            return self._place_in_quarantine(source, distinct_key(key, uuid4().hex[:6]))
        return key

    def _delete_quarantined(self, locator: str) -> None:
        folder = self._root / QUARANTINE
        prefix = f"{self._prefix}{QUARANTINE}/"
        if not locator.startswith(prefix):
            raise InvalidInput(f"{locator[:200]!r} is not in the quarantine.")
        path = folder / validated_key(locator.removeprefix(prefix))
        refuse_links(path.parent, self._root)
        with disk_errors(path):
            path.unlink(missing_ok=True)
            remove_empty_folders(path.parent, folder)


def _walk(root: Path, folder: str, after: Sequence[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield key and status of the regular files below, folder by folder in the order of their names.

    Args:
        folder: where below the root; empty, or with a slash at its end.
        after: the components, below that folder, of the last key that is left out.
    """
    first = after[0] if after else ""
    for entry in _sorted_entries(root / folder):
        name = entry.name
        if name < first:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, f"{folder}{name}/", after[1:] if name == first else ())
            elif entry.is_file(follow_symlinks=False) and (name != first or len(after) > 1):
                yield f"{folder}{name}", entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # gone since the folder was read
            continue


def _sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".") and _is_text(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(shown, key=lambda entry: entry.name)


def _is_text(name: str) -> bool:
    return "\\" not in name and not any("\ud800" <= char <= "\udfff" for char in name)
