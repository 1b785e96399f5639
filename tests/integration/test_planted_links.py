"""Symbolic links that somebody planted under UPLOAD_DIR: nothing is read, written or deleted through them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from backend.config import Settings
from backend.errors import StorageMisconfigured
from backend.services.storage.files import open_file
from tests.conftest import api, send
from tests.integration.test_checkpoints import until
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

SECRET = "the neighbour's"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file, and that nothing has happened to."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET)
    yield folder
    assert [path.name for path in folder.iterdir()] == ["secret.txt"]
    assert (folder / "secret.txt").read_text() == SECRET


def replace_by_link(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
async def test_a_recording_behind_a_link_is_not_handed_out_or_deleted(
    client: httpx.AsyncClient, recording: Path, outside: Path, depth: int
) -> None:
    answer = (await send(client, recording)).json()
    stored = Path(answer["audio_file_path"])
    place = [stored, *stored.parents][depth]
    behind = outside / "secret.txt" if depth == 0 else outside
    replace_by_link(place, behind)
    address = f"/conversations/{answer['conversation_id']}"
    download = await client.get(f"{address}/audio")
    assert download.status_code >= 400 and SECRET not in download.text
    await client.delete(address)
    assert place.is_symlink() or not place.exists()


async def test_a_link_to_another_conversations_recording_is_not_followed(
    client: httpx.AsyncClient, recording: Path, tmp_path: Path
) -> None:
    first = (await send(client, recording)).json()
    second = (await send(client, write(tmp_path / "other.wav", tone(3.0)))).json()
    replace_by_link(Path(first["audio_file_path"]), Path(second["audio_file_path"]))
    assert (await client.get(f"/conversations/{first['conversation_id']}/audio")).status_code >= 400
    await client.delete(f"/conversations/{first['conversation_id']}")
    assert (await client.get(f"/conversations/{second['conversation_id']}/audio")).status_code == 200


@pytest.mark.parametrize("name", [".spool", ".spool/kept", ".spool/uploads"])
async def test_nothing_is_written_through_a_link_in_place_of_the_spool(
    settings: Settings, recording: Path, outside: Path, tmp_path: Path, name: str
) -> None:
    async with api(settings):
        pass
    replace_by_link(tmp_path / "uploads" / name, outside)
    if name == ".spool":
        with pytest.raises(StorageMisconfigured, match="symbolic link"):
            async with api(settings):
                pass
        return
    async with api(settings) as (client, _):
        headers = {"Upload-Length": "5", "Tus-Resumable": "1.0.0"}
        answers = [await send(client, recording), await client.post("/uploads", headers=headers)]
    assert 503 in [answer.status_code for answer in answers]


async def test_a_waiting_recording_that_was_replaced_by_a_link_is_not_read(
    settings: Settings, recording: Path, outside: Path, tmp_path: Path
) -> None:
    async with api(settings.model_copy(update={"workers": "none"})) as (client, _):
        job = (await send(client, recording, "?async=true")).json()["id"]
    for waiting in (tmp_path / "uploads").rglob("*"):
        if waiting.is_file():
            replace_by_link(waiting, outside / "secret.txt")
    async with api(settings) as (client, services):
        await services.runner.start()
        await until(lambda: not services.runner.running)
        assert (await client.get(f"/jobs/{job}")).json()["status"] in ("queued", "failed")


async def test_verify_and_repair_move_and_delete_nothing_through_a_link(
    settings: Settings, recording: Path, outside: Path, tmp_path: Path
) -> None:
    async with api(settings) as (client, _):
        stored = Path((await send(client, recording)).json()["audio_file_path"])
        replace_by_link(stored.parent, outside)
        replace_by_link(tmp_path / "uploads" / ".quarantine", outside)
        verified = await client.post("/storage/verify", json={})
        assert verified.status_code == 200 and verified.json()["status"] != "clean"
        await client.post("/storage/repair", json={"apply": True})


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_only_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError):
        open_file(tmp_path / "x")
