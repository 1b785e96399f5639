"""X-Request-ID: taken over if it is harmless, else new; on every answer, also on that to an unexpected error."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from backend.api.middleware.request_ids import add_request_ids
from backend.api.problems import add_problem_handlers
from backend.observability.logs import current_ids

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    add_problem_handlers(app)
    add_request_ids(app)

    @app.get("/ids")
    async def ids() -> dict[str, str]:
        return current_ids()

    @app.get("/threaded")
    def threaded() -> dict[str, str]:
        return current_ids()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield current_ids()["request_id"]

        return StreamingResponse(body())

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("by accident")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize("path", ["/ids", "/threaded"])
async def test_a_callers_id_is_taken_over(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"X-Request-ID": "order-7:a/b=c"})

    assert answer.headers["x-request-id"] == "order-7:a/b=c"
    assert answer.json() == {"request_id": "order-7:a/b=c"}


async def test_without_one_every_request_gets_its_own(client: httpx.AsyncClient) -> None:
    first, second = [await client.get("/ids") for _ in range(2)]

    assert first.headers["x-request-id"] == first.json()["request_id"]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, '{"a":1}', "naïve", "\x1b[31m", "a\tb"])
async def test_an_id_that_could_forge_log_lines_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/ids", headers={"X-Request-ID": given.encode()})

    assert answer.status_code == 200
    assert answer.headers["x-request-id"] not in ("", given)


async def test_a_streamed_answer_belongs_to_its_request(client: httpx.AsyncClient) -> None:
    answer = await client.get("/stream", headers={"X-Request-ID": "r1"})

    assert (answer.text, answer.headers["x-request-id"]) == ("r1", "r1")


@pytest.mark.parametrize("path", ["/nowhere", "/broken"])
async def test_errors_have_the_id_too(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"X-Request-ID": "r1"})

    assert answer.status_code in (404, 500)
    assert answer.headers["x-request-id"] == "r1"


async def test_the_line_about_an_unexpected_error_has_the_id(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, str]] = []

    class Look(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(current_ids())

    look = Look()
    logging.getLogger("backend.api.problems").addHandler(look)
    try:
        await client.get("/broken", headers={"X-Request-ID": "r1"})
    finally:
        logging.getLogger("backend.api.problems").removeHandler(look)

    assert seen == [{"request_id": "r1"}]
    assert "by accident" in caplog.text
