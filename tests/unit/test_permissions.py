"""Files that an older version left open to other users are closed; what is not ours is named and left."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from backend.database.session import sqlite_files
from backend.permissions import close_files, close_folder
from backend.services.storage.keys import made_here
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "backend.permissions"):
        yield


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def make(path: Path, file_mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    path.chmod(file_mode)
    return path


def test_the_files_of_a_sqlite_database_are_those_of_both_databases_and_the_lock(tmp_path: Path) -> None:
    found = {path.name for path in sqlite_files(f"sqlite+aiosqlite:///{tmp_path}/a.db")}
    ends = ("", "-wal", "-shm", "-journal")
    assert found == {f"{name}{end}" for name in ("a.db", "a.jobs.db") for end in ends} | {"a.db.migrate.lock"}
    assert sqlite_files("postgresql://u:p@h/n") == []


def test_files_are_closed_and_missing_ones_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_file, private = make(tmp_path / "a", 0o664), make(tmp_path / "b", 0o600)
    close_files([open_file, private, tmp_path / "missing"])
    assert mode(open_file) == mode(private) == 0o600
    assert "1 files and folders were open" in caplog.text
    caplog.clear()
    close_files([open_file, private])
    assert caplog.text == ""


def test_the_folder_of_a_database_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    file = make(folder / "a.db")
    folder.chmod(0o755)
    close_files(sqlite_files(f"sqlite:///{file}"))
    assert mode(file) == 0o600 and mode(folder) == 0o755


def test_a_link_is_not_followed_but_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    foreign = make(tmp_path / "foreign")
    (tmp_path / "a.db").symlink_to(foreign)
    close_files([tmp_path / "a.db"])
    assert mode(foreign) == 0o644


RECORDING = "conv_1/2026/01/15/a.wav"


def close(folder: Path) -> None:
    close_folder(folder, made_here)


def test_what_aperta_made_in_a_folder_is_closed_and_links_in_it_are_left_alone(tmp_path: Path) -> None:
    root, outside = tmp_path / "uploads", make(tmp_path / "outside" / "file")
    outside.parent.chmod(0o755)
    inside = [make(root / name) for name in (RECORDING, ".spool/kept/x", ".quarantine/foreign/q")]
    (root / ".spool" / "link").symlink_to(outside.parent)
    (root / "conv_1" / "2026" / "link").symlink_to(outside)
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())):
        folder.chmod(0o755)
    close(root)
    assert [mode(path) for path in inside] == [0o600] * 3
    assert {mode(folder) for folder in (root, *inside[0].parents[:4], *inside[1].parents[:2])} == {0o700}
    assert mode(outside) == 0o644 and mode(outside.parent) == 0o755


@pytest.mark.parametrize("name", ["2026/a.wav", "music/2026/01/15/a.mp3", "conv_1/notes/x", "conv_1/2026/x.txt", "x"])
def test_files_of_other_programs_keep_their_rights(tmp_path: Path, name: str) -> None:
    foreign, own = make(tmp_path / "uploads" / name, 0o664), make(tmp_path / "uploads" / RECORDING)
    close(tmp_path / "uploads")
    assert mode(foreign) == 0o664 and mode(own) == 0o600


def test_a_folder_that_other_programs_use_stays_open_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "shared"
    foreign, own = make(root / "music" / "a.mp3"), make(root / RECORDING)
    for folder in (root, foreign.parent, root / "conv_1"):
        folder.chmod(0o775)
    close(root)
    assert mode(root) == mode(foreign.parent) == 0o775 and mode(root / "conv_1") == 0o700 and mode(own) == 0o600
    assert "stays open" in caplog.text and "music" in caplog.text


def test_a_folder_that_everybody_may_write_to_stays_so(tmp_path: Path) -> None:
    own = make(tmp_path / "drop" / RECORDING)
    (tmp_path / "drop").chmod(0o1777)
    close(tmp_path / "drop")
    assert mode(tmp_path / "drop") == 0o777 and mode(own) == 0o600


@pytest.mark.parametrize("name", [".gitkeep", "lost+found/"])
def test_a_folder_with_nothing_that_others_could_use_is_closed(tmp_path: Path, name: str) -> None:
    root = tmp_path / "uploads"
    root.mkdir(mode=0o755)
    if name.endswith("/"):
        (root / name).mkdir(mode=0o700)
    else:
        (root / name).touch(mode=0o644)
    close(root)
    assert mode(root) == 0o700


def test_a_folder_that_is_a_link_itself_is_closed(tmp_path: Path) -> None:
    file = make(tmp_path / "disk" / RECORDING)
    (tmp_path / "uploads").symlink_to(tmp_path / "disk")
    close(tmp_path / "uploads")
    assert mode(file) == 0o600 and mode(tmp_path / "disk") == 0o700


def test_a_closed_folder_is_not_looked_through_again(tmp_path: Path) -> None:
    file = make(tmp_path / "uploads" / RECORDING)
    (tmp_path / "uploads").chmod(0o700)
    close(tmp_path / "uploads")
    assert mode(file) == 0o644


def test_in_a_shared_folder_a_closed_conversation_is_not_looked_through_again(tmp_path: Path) -> None:
    root = tmp_path / "shared"
    file, _ = make(root / RECORDING), make(root / "music.mp3")
    (root / "conv_1").chmod(0o700)
    close(root)
    assert mode(file) == 0o644


AS_NOBODY = (
    "import logging, os, sys; from pathlib import Path; from backend import permissions; "
    "from backend.services.storage.keys import made_here; os.setuid(65534); "
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may reach, which pytest's own is not."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-c", AS_NOBODY + script, *arguments)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


@needs_root
def test_a_file_of_another_user_is_named_and_left(public_folder: Path) -> None:
    day = public_folder / "uploads" / "conv_1" / "2026" / "01" / "15"
    foreign, own = make(day / "foreign"), make(day / "own")
    for path in (own, *own.parents[:5]):
        os.chown(path, 65534, 65534)
    script = "logging.basicConfig(level='INFO'); permissions.close_folder(Path(sys.argv[1]), made_here)"
    done = run(script, str(public_folder / "uploads"))
    assert mode(foreign) == 0o644 and mode(own) == 0o600
    assert "stay open" in done.stderr and "foreign" in done.stderr


def test_a_closed_process_cannot_be_dumped_or_read_by_others_of_its_user() -> None:
    script = (
        "import ctypes; from backend import permissions; dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0); "
        "print(dumpable()); permissions.close_process(); print(dumpable())"
    )
    done = subprocess.run((sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]


def test_closing_a_file_keeps_the_locks_that_this_process_has_on_it(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    script = f"import fcntl; fcntl.lockf(open({str(path)!r}, 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with path.open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        close_files([path])
        assert subprocess.run((sys.executable, "-c", script), capture_output=True).returncode
