"""Two servers on one upload folder, and many uploads of one name at once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.media import tone, write
from tests.support.processes import ServerProcess, serving

UPLOADS = 20
QUICK = {"DIARIZATION_ENGINE": "none"}


def upload(server: ServerProcess, content: bytes) -> str:
    """The conversation's id."""
    files = {"file": ("meeting.wav", content, "audio/wav")}
    answer = httpx.post(f"{server.url}/audio/process", files=files, timeout=280)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["conversation_id"])


@pytest.mark.parametrize("database", ["one each", "shared"])
def test_uploads_of_one_name_to_two_servers_are_whole_recordings(tmp_path: Path, database: str) -> None:
    pitches = range(200, 200 + 10 * UPLOADS, 10)
    contents = [write(tmp_path / "a.wav", tone(0.2, frequency_hz=pitch)).read_bytes() for pitch in pitches]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    shared = {"UPLOAD_DIR": str(tmp_path / "uploads"), **QUICK}
    if database == "shared":
        shared["DATABASE_URL"] = f"sqlite+aiosqlite:///{tmp_path}/rows.db"
    with (
        serving(folders[0], **shared) as one,
        serving(folders[1], **shared) as two,
        ThreadPoolExecutor(UPLOADS) as pool,
    ):
        asked = [(one, two)[number % 2] for number in range(UPLOADS)]
        conversations = list(pool.map(upload, asked, contents))
        assert len(set(conversations)) == UPLOADS
        for server, conversation, content in zip(asked, conversations, contents, strict=True):
            stored = httpx.get(f"{server.url}/conversations/{conversation}/audio").content
            assert hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()
    recordings = [path for path in (tmp_path / "uploads").rglob("*.wav") if ".spool" not in path.parts]
    assert len(recordings) == UPLOADS
    assert not [path for path in (tmp_path / "uploads" / ".spool").rglob("*") if path.is_file()]


def test_a_server_that_starts_or_stops_leaves_the_uploads_of_another_alone(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    shared = {"UPLOAD_DIR": str(tmp_path / "uploads"), **QUICK}
    content = write(tmp_path / "a.wav", tone(3.0)).read_bytes()
    with serving(folders[0], **shared) as one:
        with serving(folders[1], **shared) as two:
            first = upload(two, content)
        second = upload(one, content)
        assert httpx.get(f"{one.url}/conversations/{second}/audio").content == content
        assert httpx.get(f"{one.url}/conversations/{first}").status_code == 404
    with serving(folders[1], **shared) as two:
        assert httpx.get(f"{two.url}/conversations/{first}/audio").content == content
