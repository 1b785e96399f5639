"""The page where a key is needed: the browser asks for it and then sends it with everything that the page does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect

from tests.conftest import SAMPLE
from tests.support.processes import ServerProcess, serving, wait_until_ready

NAME, SECRET = "ada", "correct-horse-battery"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("keys"), API_KEYS=f"{NAME}:{SECRET}") as running:
        wait_until_ready(running.url)
        yield running


@pytest.fixture
def known(browser: Browser, locked: ServerProcess) -> Iterator[BrowserContext]:
    """A browser whose user answers the question for name and password."""
    credentials = {"username": NAME, "password": SECRET}
    with browser.new_context(base_url=locked.url, http_credentials=credentials) as context:
        context.set_default_timeout(60_000)
        yield context


def process_on(page: Page, recording: Path) -> None:
    page.get_by_label("Choose recordings").set_input_files(recording)
    expect(page.get_by_role("heading", level=1)).to_have_text(recording.name, timeout=240_000)


def test_whoever_has_a_key_uploads_follows_listens_and_downloads(known: BrowserContext) -> None:
    page = known.new_page()
    page.goto("/")
    process_on(page, SAMPLE)
    expect(page.get_by_role("region", name="Transcript")).to_contain_text("library")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.3")
    with page.expect_download() as download:
        page.get_by_role("link", name="Recording", exact=True).click()
    assert Path(download.value.path()).read_bytes() == SAMPLE.read_bytes()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("region", name="Recordings")).to_be_visible()


def test_a_key_in_the_address_does_too(browser: Browser, locked: ServerProcess, silence: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(locked.url.replace("://", f"://{NAME}:{SECRET}@"))
        process_on(page, silence)


def test_swagger_ui_offers_to_authorize(known: BrowserContext) -> None:
    page = known.new_page()
    page.goto("/docs")
    page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".modal-ux")
    expect(dialog).to_contain_text(re.compile(r"basic.*bearer.*X-API-Key", re.DOTALL | re.IGNORECASE))


def test_without_a_key_nothing_is_shown(browser: Browser, locked: ServerProcess) -> None:
    with browser.new_context(base_url=locked.url) as context:
        page = context.new_page()
        statuses: list[int] = []
        page.on("response", lambda answer: statuses.append(answer.status))
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):  # nobody there to answer the question
            page.goto("/")
        assert statuses == [401]


def test_a_page_of_another_site_cannot_use_the_key(known: BrowserContext, locked: ServerProcess) -> None:
    """A browser that knows a key sends it whoever the form belongs to, so the form's site is what counts."""
    page = known.new_page()
    page.goto("/")
    action = f"{locked.url}/jobs/job_1/retry"
    form = f'<form method="post" action="{action}"><button>Win</button></form>'
    page.route("http://elsewhere.test/", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto("http://elsewhere.test/")
    with page.expect_response(action) as answer:
        page.get_by_role("button").click()
    assert answer.value.status == 403
    assert "another site" in answer.value.text()
