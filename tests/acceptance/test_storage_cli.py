"""`aperta storage …` as cron and people run it: reports, exit status, and a database from a folder alone."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.database.migrate import migrate
from backend.database.session import Database
from backend.services.storage import StorageConfig, StorageService
from tests.support.processes import environment
from tests.support.recordings import Kept, keep_conversation, rows_of


def aperta(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "backend.cli", "storage", *arguments),
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


def report(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def keep(folder: Path, count: int) -> list[Kept]:
    """Conversations as a server leaves them."""

    async def work() -> list[Kept]:
        url = f"sqlite+aiosqlite:///{folder}/rows.db"
        await migrate(url)
        database = Database(url)
        async with StorageService(StorageConfig(_env_file=None, upload_dir=str(folder / "uploads"))) as storage:
            kept = [await keep_conversation(storage, database, title=f"No. {number}") for number in range(count)]
        await database.close()
        return kept

    return asyncio.run(work())


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    async def work() -> dict[str, list[tuple[Any, ...]]]:
        database = Database(f"sqlite+aiosqlite:///{path}")
        found = await rows_of(database)
        await database.close()
        return found

    return asyncio.run(work())


def test_an_empty_installation_is_clean(tmp_path: Path) -> None:
    done = aperta(tmp_path, "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing is wrong." in done.stdout


def test_verify_finds_and_repair_puts_right(tmp_path: Path) -> None:
    kept = keep(tmp_path, 2)
    stray = Path(kept[0].audio.locator).with_name("a [b] stray.wav")
    stray.write_bytes(b"stray")
    found = aperta(tmp_path, "verify", "--grace", "0s", "--json")
    assert (found.returncode, report(found)["counts"]) == (1, {"orphan": 1})
    assert str(stray) in aperta(tmp_path, "verify", "--grace", "0s").stdout
    dry = aperta(tmp_path, "repair", "--grace", "0s")
    assert dry.returncode == 1 and "--apply" in dry.stdout and stray.exists()
    real = aperta(tmp_path, "repair", "--apply", "--grace", "0s", "--json")
    assert (real.returncode, report(real)["counts"]) == (0, {"quarantine": 1})
    assert Path(report(real)["actions"][0]["target"]).read_bytes() == b"stray" and not stray.exists()
    assert aperta(tmp_path, "verify", "--deep", "--grace", "0s").returncode == 0
    emptied = aperta(tmp_path, "repair", "--empty-quarantine", "--older-than", "0s", "--apply", "--json")
    assert (emptied.returncode, report(emptied)["objects"]) == (0, 1)


def test_the_database_comes_back_from_the_folder_alone(tmp_path: Path) -> None:
    keep(tmp_path, 3)
    before = rows(tmp_path / "rows.db")
    empty = {"DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/new.db"}
    done = aperta(tmp_path, "rebuild", **empty)
    assert done.returncode == 0 and "3 manifests: 3 rebuilt, 0 there already." in done.stdout
    assert rows(tmp_path / "new.db") == before
    assert report(aperta(tmp_path, "rebuild", "--json", **empty))["present"] == 3


def test_a_long_look_goes_on_where_it_stopped(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    first = aperta(tmp_path, "verify", "--max-objects", "1")
    command = shlex.split(first.stdout[first.stdout.index("--cursor") :])
    second = report(aperta(tmp_path, "verify", "--json", *command))
    assert first.returncode == 0
    assert (second["checked"]["rows"], second["checked"]["objects"], second["cursor"]) == (0, 3, None)


def test_usage_shows_what_is_where(tmp_path: Path) -> None:
    keep(tmp_path, 2)
    shown = aperta(tmp_path, "usage")
    assert shown.returncode == 0 and "quarantine" in shown.stdout
    held = {item["kind"]: item["objects"] for item in report(aperta(tmp_path, "usage", "--json"))["holdings"]}
    assert held == {"audio": 2, "metadata": 2, "transcript": 2}


def test_a_drain_without_s3_has_nothing_to_do(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    done = aperta(tmp_path, "drain", "--json")
    assert (done.returncode, report(done)["moved"], report(done)["backlog"]["objects"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        (("verify",), {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x"}, "DATABASE_URL"),
        (("verify", "--cursor", "nonsense"), {}, "no cursor"),
        (("repair", "--grace", "5"), {}, "no duration"),
        (("rebuild",), {"UPLOAD_DIR": "/proc/nowhere"}, "UPLOAD_DIR"),
    ],
)
def test_what_cannot_be_looked_at_is_status_2_and_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], settings: dict[str, str], says: str
) -> None:
    done = aperta(tmp_path, *arguments, **settings)
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr


def test_the_rows_follow_a_folder_that_was_moved(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    (tmp_path / "uploads").rename(tmp_path / "elsewhere")
    old, settings = str(tmp_path / "uploads"), {"UPLOAD_DIR": str(tmp_path / "elsewhere")}
    dry = aperta(tmp_path, "relocate", old, **settings)
    assert dry.returncode == 0 and "Nothing was changed; --apply does it." in dry.stdout, dry.stderr
    assert aperta(tmp_path, "verify", **settings).returncode != 0
    done = aperta(tmp_path, "relocate", old, "--apply", "--json", **settings)
    assert done.returncode == 0 and report(done)["applied"], done.stderr
    assert aperta(tmp_path, "verify", "--deep", **settings).returncode == 0
