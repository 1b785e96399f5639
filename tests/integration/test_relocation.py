"""A folder that was moved: the rows follow when every object is there, all of them or none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.database.migrate import migrate
from backend.database.models import Conversation, Job, StoredObjectRow, Worker
from backend.database.session import Database
from backend.errors import Conflict, InvalidInput
from backend.services.reconciliation import ReconciliationService
from backend.services.storage import StorageConfig, StorageService
from tests.support.fixtures_reconciliation import reconciliation
from tests.support.recordings import Kept, change, keep_conversation, rows_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite+aiosqlite:///{tmp_path}/rows.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    await migrate(url)
    database = Database(url)
    yield database
    await database.close()


@asynccontextmanager
async def storing(folder: Path | str) -> AsyncIterator[StorageService]:
    async with StorageService(StorageConfig(_env_file=None, upload_dir=str(folder))) as storage:
        yield storage


@pytest.fixture
async def kept(tmp_path: Path, database: Database) -> list[Kept]:
    async with storing(tmp_path / "Old_") as storage:
        return [await keep_conversation(storage, database) for _ in range(3)]


@pytest.fixture
async def moved(tmp_path: Path, database: Database, kept: list[Kept]) -> AsyncIterator[ReconciliationService]:
    """What looks after the rows once the folder has its new name."""
    (tmp_path / "Old_").rename(tmp_path / "new")
    async with storing(tmp_path / "new") as storage:
        yield reconciliation(storage, database, batch=2)


async def locators(database: Database) -> set[str | None]:
    async with database.transaction() as session:
        objects = (await session.execute(sa.select(StoredObjectRow.locator))).scalars().all()
        urls = (await session.execute(sa.select(Conversation.recording_url, Conversation.transcript_url))).all()
    return {*objects, *(url for row in urls for url in row)}


async def test_unless_told_it_only_says_what_it_would_do(
    moved: ReconciliationService, database: Database, tmp_path: Path
) -> None:
    before = await rows_of(database)
    report = await moved.relocate(str(tmp_path / "Old_"), deep=True, apply=False)
    assert (report.applied, report.objects, report.missing, report.exit_code) == (False, 9, 0, 0)
    assert await rows_of(database) == before


async def test_the_rows_follow_and_all_is_clean(
    moved: ReconciliationService, database: Database, tmp_path: Path
) -> None:
    report = await moved.relocate(f"{tmp_path}/Old_/", deep=False, apply=True)
    assert report.applied and report.new == f"{tmp_path}/new/"
    assert all(str(locator).startswith(f"{tmp_path}/new/conv_") for locator in await locators(database))
    with pytest.raises(InvalidInput, match="below UPLOAD_DIR"):
        await moved.relocate(str(tmp_path / "Old_"), deep=False, apply=True)


async def test_a_job_that_may_be_tried_again_finds_its_recording(
    moved: ReconciliationService, database: Database, kept: list[Kept], tmp_path: Path
) -> None:
    place = f"{tmp_path}/Old_/x/2026/01/01/a.wav"
    job = Job(
        id="job_1",
        conversation_id=kept[0].id,
        status="failed",
        queue="asr",
        recording=place,
        filename="a.wav",
        size_bytes=1,
        sha256="0" * 64,
        options={},
        created_at=datetime.now(UTC),
    )
    async with database.transaction() as session:
        session.add(job)
    await moved.relocate(str(tmp_path / "Old_"), deep=False, apply=True)
    async with database.transaction() as session:
        found = (await session.execute(sa.select(Job.recording))).scalar_one()
    assert found == f"{tmp_path}/new/x/2026/01/01/a.wav"


def _remove(path: Path) -> None:
    path.unlink()


def _shorten(path: Path) -> None:
    path.write_bytes(b"x")


def _flip(path: Path) -> None:
    path.write_bytes(bytes(reversed(path.read_bytes())))


@pytest.mark.parametrize(
    ("damage", "why"), [(_remove, "does not exist"), (_shorten, "bytes instead of"), (_flip, "SHA-256")]
)
async def test_nothing_changes_while_an_object_is_not_there_as_it_was(
    moved: ReconciliationService,
    database: Database,
    kept: list[Kept],
    tmp_path: Path,
    damage: Callable[[Path], None],
    why: str,
) -> None:
    damage(Path(kept[1].audio.locator.replace("/Old_/", "/new/")))
    before = await rows_of(database)
    report = await moved.relocate(str(tmp_path / "Old_"), deep=True, apply=True)
    assert (report.applied, report.missing, report.exit_code) == (False, 1, 1)
    [absence] = report.examples
    assert absence.locator == kept[1].audio.locator and why in absence.why
    assert await rows_of(database) == before


@pytest.mark.parametrize("other", ["old_", "Oldx", "Old", "nowhere"])
async def test_a_folder_that_no_row_names_is_refused_with_one_that_rows_name(
    moved: ReconciliationService, tmp_path: Path, other: str
) -> None:
    with pytest.raises(InvalidInput, match=r"one of them is .*/Old_/conv_"):
        await moved.relocate(str(tmp_path / other), deep=False, apply=True)


async def test_the_new_folder_is_not_the_old_one(moved: ReconciliationService, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Set it to the new folder first"):
        await moved.relocate(str(tmp_path / "new"), deep=False, apply=True)


async def test_while_a_process_runs_nothing_is_changed(
    moved: ReconciliationService, database: Database, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    async with database.transaction() as session:
        for name, at in (("lives-1", now), ("died-2", now - timedelta(minutes=1))):
            worker = Worker(id=name, host="h", boot_id="b", pid=1, queues=[], started_at=at, heartbeat_at=at)
            session.add(worker)
    with pytest.raises(Conflict, match=r"^lives-1 may write"):
        await moved.relocate(str(tmp_path / "Old_"), deep=False, apply=True)
    assert (await moved.relocate(str(tmp_path / "Old_"), deep=False, apply=False)).objects == 9
    await change(database, sa.delete(Worker).where(Worker.id == "lives-1"))
    assert (await moved.relocate(str(tmp_path / "Old_"), deep=False, apply=True)).applied
