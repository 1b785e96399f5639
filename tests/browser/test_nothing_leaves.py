"""The pages ask their own server for everything, also while they are used."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.support.processes import ServerProcess


@pytest.fixture
def asked(page: Page) -> list[str]:
    """The address of every request that the page makes, in order."""
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("websocket", lambda connection: requests.append(connection.url))
    return requests


def open_start(page: Page, meeting: str) -> None:
    page.goto("/")
    expect(page.get_by_label("Choose recordings")).to_be_attached()
    expect(page.get_by_text("meeting.flac").first).to_be_visible()


def open_conversation(page: Page, meeting: str) -> None:
    page.goto(f"/#/conversations/{meeting}")
    page.locator("#segments > li").last.get_by_role("button", name="Play from").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def open_docs(page: Page, meeting: str) -> None:
    page.goto("/docs")
    expect(page.locator(".opblock-post").filter(has_text="/audio/process")).to_be_visible()


@pytest.mark.parametrize("opened", [open_start, open_conversation, open_docs])
def test_a_page_asks_only_its_own_server(
    page: Page, server: ServerProcess, meeting: str, asked: list[str], opened: Callable[[Page, str], None]
) -> None:
    opened(page, meeting)
    page.wait_for_load_state("networkidle")
    assert len(asked) > 1
    assert {urlsplit(url)[:2] for url in asked if not url.startswith("data:")} == {urlsplit(server.url)[:2]}
