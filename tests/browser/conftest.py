"""A real server with the built-in engines, and a headless Chromium that may talk to nothing else."""

from __future__ import annotations

import os
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import SAMPLE
from tests.support.processes import ServerProcess, serving, wait_until_ready

REBOUND = "attacker.example"
"""A name that has this machine's address in the tests' browser."""
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
)
VIEWPORT = {"width": 1280, "height": 900}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Transcribing takes seconds; on a busy machine a page may wait a minute for it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("browser")) as running:
        wait_until_ready(running.url)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, fresh. Not for the session: Playwright keeps an event loop running as long as it lives."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not executable:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    """A page whose test fails if it asked another server for anything, or if its scripts broke."""
    with browser.new_context(base_url=server.url, viewport=VIEWPORT) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        asked: list[str] = []
        broken: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.on("console", lambda message: broken.append(message.text) if _is_policy(message.text) else None)
        yield page
        assert asked
        assert [url for url in asked if not url.startswith((f"{server.url}/", "data:"))] == []
        assert broken == []


@pytest.fixture(scope="session")
def silence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds in which nobody speaks."""
    path = tmp_path_factory.mktemp("recordings") / "silence.wav"
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(16_000)
        recording.writeframes(bytes(2 * 2 * 16_000))
    return path


@pytest.fixture(scope="session")
def meeting(server: ServerProcess) -> str:
    """The id of the sample, processed."""
    return process(server, SAMPLE)


def process(server: ServerProcess, recording: Path, **fields: str) -> str:
    """Process a recording through the API; returns the conversation's id."""
    with recording.open("rb") as file:
        files = {"file": (recording.name, file)}
        answer = httpx.post(f"{server.url}/audio/process", files=files, data=fields, timeout=300)
    assert answer.status_code == 200, answer.text
    return answer.json()["conversation_id"]


@pytest.fixture
def silent_conversation(server: ServerProcess, silence: Path) -> str:
    """The id of a conversation of its own, for a test that changes or deletes it."""
    return process(server, silence, title="To be deleted")


def _is_policy(message: str) -> bool:
    return "Content Security Policy" in message or "TrustedHTML" in message
