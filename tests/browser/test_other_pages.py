"""Other pages in the same browser cannot read, frame or change anything, nor use a key. Deletes reach the cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.browser.conftest import REBOUND
from tests.support.processes import ServerProcess, serving

NAME, SECRET = "ada", "correct-horse-battery"
FETCH = "url => fetch(url).then(answer => answer.status)"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("keys"), WORKERS="none", API_KEYS=f"{NAME}:{SECRET}") as running:
        yield running


@pytest.fixture
def stranger(browser: Browser) -> Iterator[Page]:
    """A page that may ask any server."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        yield page


def rebound(server: ServerProcess, path: str) -> str:
    return server.url.replace("127.0.0.1", REBOUND) + path


def test_a_name_that_was_turned_to_this_machine_shows_nothing(stranger: Page, server: ServerProcess) -> None:
    answer = stranger.goto(rebound(server, "/conversations"))
    assert answer and answer.status == 421


def test_such_a_name_does_not_get_a_key_that_the_browser_knows(stranger: Page, locked: ServerProcess) -> None:
    statuses: list[int] = []
    stranger.on("response", lambda answer: statuses.append(answer.status))
    stranger.goto(locked.url.replace("://", f"://{NAME}:{SECRET}@") + "/conversations")
    stranger.goto(f"{locked.url}/jobs")
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        stranger.goto(rebound(locked, "/conversations"))
    assert statuses[-1] == 401 and set(statuses[-3:-1]) == {200}


@pytest.mark.parametrize("path", ["/", "/docs", "/conversations", "/nothing"])
def test_nothing_can_be_framed(stranger: Page, server: ServerProcess, path: str) -> None:
    frame = f'<iframe src="{server.url}{path}"></iframe>'
    stranger.route("http://elsewhere.test/", lambda route: route.fulfill(body=frame, content_type="text/html"))
    stranger.goto("http://elsewhere.test/")
    assert [inner.url for inner in stranger.frames[1:]] == ["chrome-error://chromewebdata/"]


def test_a_page_on_another_port_cannot_change_anything(stranger: Page, server: ServerProcess) -> None:
    action, neighbour = f"{server.url}/jobs/job_1/retry", "http://127.0.0.1:8149/"
    form = f'<form method="post" action="{action}"><button>Win</button></form>'
    stranger.route(neighbour, lambda route: route.fulfill(body=form, content_type="text/html"))
    stranger.goto(neighbour)
    with stranger.expect_response(action) as answer:
        stranger.get_by_role("button").click()
    assert answer.value.status == 403


def test_a_deleted_recording_does_not_stay_in_the_browser(page: Page, silent_conversation: str) -> None:
    page.goto("/")
    audio = f"/conversations/{silent_conversation}/audio"
    assert [page.evaluate(FETCH, audio) for _ in range(2)] == [200, 200]
    page.evaluate("url => fetch(url, {method: 'DELETE'})", f"/conversations/{silent_conversation}")
    assert page.evaluate(FETCH, audio) == 404
