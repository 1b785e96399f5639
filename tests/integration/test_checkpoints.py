"""The durable engine's rows: JSON, pickles never read, and what an older version left is begun again."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from backend.config import Settings
from backend.domain.jobs import Superseded
from backend.errors import AppError, ObjectMissing, ProcessingFailed
from backend.services.jobs.checkpoints.serializer import JsonCheckpoints
from tests.conftest import api, send
from tests.integration.test_jobs import reach
from tests.support.media import tone, write
from tests.support.pickled_jobs import Program, age, pickled, plant, plant_step

pytestmark = pytest.mark.anyio


@pytest.fixture
def jobs_db(tmp_path: Path) -> Path:
    return tmp_path / "rows.jobs.db"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "the program ran")


@pytest.fixture
async def waiting(settings: Settings, tmp_path: Path) -> str:
    """A job that a server without workers accepted."""
    recording = write(tmp_path / "meeting.wav", tone(2.0))
    async with api(settings.model_copy(update={"workers": "none"})) as (client, _):
        return str((await send(client, recording, "?async=true")).json()["id"])


async def finish(settings: Settings, job_id: str, status: str = "completed") -> dict[str, object]:
    async with api(settings) as (client, services):
        await services.runner.start()
        return await reach(client, job_id, status, 40)


async def test_what_is_written_down_is_json(settings: Settings, waiting: str, jobs_db: Path) -> None:
    with closing(sqlite3.connect(jobs_db)) as connection:
        [(row,)] = connection.execute(
            "SELECT inputs FROM workflow_input WHERE workflow_uuid = ?", (waiting,)
        ).fetchall()
    assert json.loads(row) == {"value": {"args": [waiting], "kwargs": {}}}


@pytest.mark.parametrize("mark", ["py_pickle", "aperta_json", None])
async def test_a_program_in_place_of_a_workflows_input_never_runs_and_the_job_is_done_from_its_row(
    settings: Settings,
    waiting: str,
    jobs_db: Path,
    program: Program,
    mark: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert plant(jobs_db, program, mark)
    await finish(settings, waiting)
    assert not program.path.exists()
    assert "pickles can run programs" in caplog.text


@pytest.mark.parametrize("column", ["output", "error"])
async def test_a_program_in_place_of_what_a_step_left_never_runs_and_the_job_says_why_it_failed(
    settings: Settings, waiting: str, jobs_db: Path, program: Program, column: str
) -> None:
    plant_step(jobs_db, waiting, program, column)
    job = await finish(settings, waiting, "failed")
    assert not program.path.exists()
    assert "pickles can run programs" in str(job["error"])


async def test_a_job_that_waited_when_checkpoints_were_pickles_is_done_after_the_upgrade(
    settings: Settings, waiting: str, jobs_db: Path
) -> None:
    age(jobs_db)
    assert (await finish(settings, waiting))["attempts"] == 1


async def test_a_job_that_ran_when_checkpoints_were_pickles_is_done_after_the_upgrade(
    settings: Settings, waiting: str, jobs_db: Path, tmp_path: Path
) -> None:
    age(jobs_db, status="PENDING", executor="a dead process")
    with closing(sqlite3.connect(tmp_path / "rows.db")) as connection, connection:
        connection.execute("UPDATE jobs SET status = 'running', worker_id = 'a dead process', attempt = 1")
    assert (await finish(settings, waiting))["attempts"] == 2


async def test_a_message_that_waited_in_an_older_version_is_sent_after_the_upgrade(
    settings: Settings, jobs_db: Path
) -> None:
    async with api(settings.model_copy(update={"workers": "none"})) as (_, services):
        await services.runner.start()
        await services.durable.enqueue("deliver_webhook", "msg_1:2:0", "webhooks", delay_s=3600)
    age(jobs_db)
    async with api(settings.model_copy(update={"workers": "none"})) as (_, services):
        await services.runner.start()
        await until(
            lambda: names(jobs_db) and names(jobs_db)[0].startswith("msg_1:2:") and "msg_1:2:0" not in names(jobs_db)
        )
        assert len(names(jobs_db)) == 1


def names(jobs_db: Path) -> list[str]:
    with closing(sqlite3.connect(jobs_db, timeout=10)) as connection:
        query = "SELECT workflow_uuid FROM workflow_status WHERE name = 'deliver_webhook'"
        return [name for (name,) in connection.execute(query)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(40):
        while not condition():
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "error",
    [
        ObjectMissing("It is gone."),
        ProcessingFailed("It broke.", "conv_1"),
        Superseded("Taken over."),
        RuntimeError("x"),
    ],
)
def test_an_error_comes_back_as_what_it_was(error: Exception) -> None:
    checkpoints = JsonCheckpoints()
    found = checkpoints.deserialize(checkpoints.serialize(error))
    assert type(found) is type(error) and str(error) in str(found)
    assert getattr(found, "conversation_id", None) == getattr(error, "conversation_id", None)


def test_an_error_of_a_library_comes_back_as_one_that_names_it() -> None:
    checkpoints = JsonCheckpoints()
    found = checkpoints.deserialize(checkpoints.serialize(KeyError("x")))
    assert isinstance(found, RuntimeError) and not isinstance(found, AppError) and "KeyError" in str(found)


@pytest.mark.parametrize("row", [pickled(1), "[]", "3", '{"error": 1}', ""])
def test_a_row_of_another_shape_is_refused(row: str) -> None:
    with pytest.raises(ValueError, match="job database"):
        JsonCheckpoints().deserialize(row)
