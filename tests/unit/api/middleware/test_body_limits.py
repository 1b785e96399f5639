"""Which routes may receive a body as large as a recording, and what that costs, in an app of a few test routes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import iter_route_contexts

from backend.api.middleware.body_limits import MAX_BODY_BYTES, add_body_limits
from backend.api.problems import add_problem_handlers
from backend.api.requests.stream import BODY_METHODS, StreamedBody, body_of
from backend.config import Settings
from backend.main import create_app

pytestmark = pytest.mark.anyio

LARGE = bytes(2 * MAX_BODY_BYTES)


@asynccontextmanager
async def serving(
    *, root_path: str = "", max_uploads: int = 2, stall_timeout_s: float = 30, least_bytes_per_s: int = 1
) -> AsyncIterator[httpx.AsyncClient]:
    """An app with one route that streams, `/streams/{name}`, and one that does not, `/plain`."""
    streams, plain = APIRouter(prefix="/streams", route_class=StreamedBody), APIRouter()

    @streams.post("/{name}")
    async def count_bytes(name: str, request: Request) -> int:
        return sum([len(data) async for data in body_of(request)])

    @plain.post("/plain")
    async def read_bytes(request: Request) -> int:
        return len(await request.body())

    app = FastAPI()
    add_problem_handlers(app)
    limits = {"max_concurrent_uploads": max_uploads, "upload_least_bytes_per_s": least_bytes_per_s}
    add_body_limits(app, Settings(_env_file=None, upload_stall_timeout_s=stall_timeout_s, **limits))
    app.include_router(streams)
    app.include_router(plain)
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_a_route_that_streams_its_body_gets_a_large_one() -> None:
    async with serving() as client:
        assert (await client.post("/streams/a", content=LARGE)).json() == len(LARGE)


async def test_any_other_route_gets_a_small_body_only() -> None:
    async with serving() as client:
        assert (await client.post("/plain", content=bytes(MAX_BODY_BYTES))).json() == MAX_BODY_BYTES
        assert (await client.post("/plain", content=LARGE)).status_code == 413


async def test_the_limits_are_the_same_below_a_path_prefix() -> None:
    async with serving(root_path="/speech") as client:
        assert (await client.post("/speech/streams/a", content=LARGE)).json() == len(LARGE)
        assert (await client.post("/speech/plain", content=LARGE)).status_code == 413


@asynccontextmanager
async def unfinished_upload(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """A request to a route that streams, whose body does not end while the context is open."""
    began, end = asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        began.set()
        await end.wait()

    async with asyncio.TaskGroup() as group:
        upload = group.create_task(client.post("/streams/slow", content=chunks()))
        await began.wait()
        yield
        end.set()
    assert upload.result().json() == len(b"first")


async def test_the_places_for_uploads_are_for_routes_that_stream() -> None:
    async with serving(max_uploads=1) as client, unfinished_upload(client):
        answer = await client.post("/streams/a", content=b"more")
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert (await client.post("/plain", content=b"more")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", "/streams/a", 405), ("OPTIONS", "/streams/a", 405), ("PUT", "/streams/a", 405), ("POST", "/other", 404)],
)
async def test_a_request_without_a_route_that_streams_takes_no_place(method: str, path: str, status: int) -> None:
    async with serving(max_uploads=1) as client, unfinished_upload(client):
        assert (await client.request(method, path)).status_code == status


async def test_a_place_is_free_again_after_each_upload() -> None:
    async with serving(max_uploads=1) as client:
        assert [(await client.post("/streams/a", content=b"12")).json() for _ in range(3)] == [2, 2, 2]


def test_every_route_that_reads_its_request_itself_says_that_it_streams() -> None:
    streams, read_it = set(), set()
    for found in iter_route_contexts(create_app(Settings(_env_file=None)).routes):
        for method in found.methods or ():
            if method not in BODY_METHODS or found.endpoint is None:
                continue
            if isinstance(found.original_route, StreamedBody) and _takes_request(found.endpoint):
                streams.add((method, found.path))
            if _takes_request(found.endpoint):
                read_it.add((method, found.path))
    assert streams == read_it
    assert streams == {
        ("POST", "/audio/process"),
        ("POST", "/uploads"),
        ("PATCH", "/uploads/{upload_id}"),
        ("POST", "/uploads/{upload_id}"),
    }


def _takes_request(endpoint: object) -> bool:
    return Request in [one.annotation for one in inspect.signature(endpoint, eval_str=True).parameters.values()]  # type: ignore[arg-type]


async def test_a_body_slower_than_the_least_speed_is_given_up_once_its_grace_is_over() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)
            await asyncio.sleep(0.02)

    async with serving(stall_timeout_s=0.1, least_bytes_per_s=1_000_000) as client:
        answer = await client.post("/streams/a", content=drip())
    assert answer.status_code == 408 and "UPLOAD_LEAST_BYTES_PER_S" in answer.json()["detail"]


async def test_a_body_at_the_least_speed_arrives_however_long_it_takes() -> None:
    async def steady() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1000)
            await asyncio.sleep(0.02)

    async with serving(stall_timeout_s=0.1, least_bytes_per_s=10_000) as client:
        assert (await client.post("/streams/a", content=steady())).json() == 100_000
