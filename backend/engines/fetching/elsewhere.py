"""Models from a place that the user names: a directory, an archive, or the https address of either.

Files whose checksums are known are checked; of others the name is all that is known. Nothing is unpacked by a library:
the files that a model of this kind has are looked for one by one, and everything else is left alone.
"""

from __future__ import annotations

import ipaddress
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, cast
from urllib.parse import urlsplit
from zipfile import BadZipFile, ZipFile, is_zipfile

import httpx2
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from backend.engines.catalogue import FILES, Kind, is_complete
from backend.engines.fetching.staging import Advance, chunks, settle, staged, write
from backend.errors import EngineUnavailable, InvalidInput

TIMEOUT_S = 30.0
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class Place(Protocol):
    """Where the files of a model are. Names are relative, with "/"."""

    def take(self, name: str, part: Path) -> bool:
        """Write a file to `part`; returns whether there is such a file."""
        ...


def bring(source: str, kinds: Sequence[Kind], target: Path, checksums: Mapping[str, str]) -> None:
    """Put the files of a model into `target`, the largest last, so that a directory that is cut off is no model.

    Args:
        source: a directory, an archive (zip or tar), or the https address of one.
        kinds: what the model may be; the first one of which every file is there is taken.
        target: the model's directory.
        checksums: SHA-256 of the files, as far as they are known.

    Raises:
        InvalidInput: no such directory, archive or address.
        EngineUnavailable: the server does not give the files, some are missing, or one has another checksum.
    """
    with staged(target) as staging, _open(source, staging) as place:
        tried: list[str] = []
        for kind in kinds:
            found = [name for name in FILES[kind] if place.take(name, _part(staging, name))]
            for name in found:
                settle(_part(staging, name), target, name, checksums.get(name))
            if is_complete(kind, target):
                return
            tried += [name for name in FILES[kind] if name not in found]
        raise EngineUnavailable(
            f"{source} holds no complete model: of the files looked for, these are missing: {', '.join(tried)}."
        )


def _part(staging: Path, name: str) -> Path:
    return staging / f"{name.replace('/', '__')}.part"


@contextmanager
def _open(source: str, staging: Path) -> Iterator[Place]:
    if "://" not in source:
        with _open_local(Path(source).expanduser()) as place:
            yield place
        return
    _check_address(source)
    with httpx2.Client(follow_redirects=True, timeout=TIMEOUT_S) as client:
        if not urlsplit(source).path.endswith(ARCHIVES):
            yield _Folder(client, source)
            return
        archive = staging / "archive"
        if not _fetch(client, source, archive):
            raise EngineUnavailable(f"{source} is not there (404).")
        with _open_archive(archive, source) as place:
            yield place


@contextmanager
def _open_local(path: Path) -> Iterator[Place]:
    if path.is_dir():
        yield _Directory(path)
    elif path.is_file():
        with _open_archive(path, str(path)) as place:
            yield place
    else:
        raise InvalidInput(f"There is no directory or archive {path}.")


class _Directory:
    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, name: str, part: Path) -> bool:
        file = self._path / name
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            write(chunks(opened), part)
        return True


class _Folder:
    """A directory that a web server shows."""

    def __init__(self, client: httpx2.Client, url: str) -> None:
        parts = urlsplit(url)
        self._client = client
        self._parts = parts._replace(path=parts.path.rstrip("/"))

    def take(self, name: str, part: Path) -> bool:
        return _fetch(self._client, self._parts._replace(path=f"{self._parts.path}/{name}").geturl(), part)


class _Archive:
    """
    Args:
        names: of all members.
        read: opens a member.
    """

    def __init__(self, names: Sequence[str], read: Callable[[str], IO[bytes]]) -> None:
        self._names = names
        self._read = read
        self._root: str | None = None

    def take(self, name: str, part: Path) -> bool:
        """The model may be in any folder of the archive; its files are taken from the one where the first was."""
        found = [member for member in self._names if self._is(member, name)]
        if not found:
            return False
        member = min(found, key=lambda path: path.count("/"))
        self._root = member.removesuffix(name)
        with self._read(member) as file:
            write(chunks(file), part)
        return True

    def _is(self, member: str, name: str) -> bool:
        if self._root is not None:
            return member == self._root + name
        return member == name or member.endswith(f"/{name}")


@contextmanager
def _open_archive(path: Path, source: str) -> Iterator[Place]:
    try:
        if is_zipfile(path):
            with ZipFile(path) as archive:
                yield _Archive(archive.namelist(), lambda name: archive.open(name))
            return
        with tarfile.open(path) as tar:
            members = {member.name: member for member in tar if member.isfile()}
            yield _Archive([*members], lambda name: cast(IO[bytes], tar.extractfile(members[name])))
    except (BadZipFile, tarfile.TarError, EOFError) as error:
        raise InvalidInput(f"{source} is no zip or tar archive that can be read ({error}).") from error


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(parts.hostname or "")):
        return
    raise InvalidInput(f"{url} cannot be used: give a directory, or an address that begins with https://.")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fetch(client: httpx2.Client, url: str, part: Path) -> bool:
    """Fetch a file, or what is missing of it; returns whether the server has it."""
    tag = part.with_suffix(".etag")
    have = part.stat().st_size if part.is_file() and tag.is_file() and tag.read_text() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:  # a file that was changed in between is sent whole
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text()}
    try:
        with client.stream("GET", url, headers=headers) as answer:
            _check_address(str(answer.url))
            if answer.status_code in (404, 410):
                return False
            if answer.status_code == 416:  # all of it is here, or something else is
                return True
            answer.raise_for_status()
            resumed = answer.status_code == 206
            tag.write_text(answer.headers.get("ETag", ""))
            with _bar(url, answer, have if resumed else 0) as advance:
                write(answer.iter_raw(), part, advance, append=resumed)
    except httpx2.HTTPStatusError as error:
        raise EngineUnavailable(f"{url} was refused: the server answered {error.response.status_code}.") from error
    except httpx2.HTTPError as error:
        raise EngineUnavailable(
            f"{url} cannot be fetched ({error or type(error).__name__}). Run the command again; it goes on from there."
        ) from error
    return True


@contextmanager
def _bar(url: str, answer: httpx2.Response, have: int) -> Iterator[Advance]:
    """Progress on stderr, if that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    size = answer.headers.get("Content-Length")
    name = urlsplit(url).path.rsplit("/", 1)[-1]
    if not console.is_terminal:
        print(f"Fetching {name} …", file=sys.stderr, flush=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=int(size) + have if size and size.isdecimal() else None, completed=have)
        yield lambda n_bytes: progress.advance(task, n_bytes)
