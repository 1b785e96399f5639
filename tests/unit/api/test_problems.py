"""Errors of a group of routes that brings a renderer, wherever they are raised; all others stay problem details."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from backend.api.middleware.access import add_access
from backend.api.middleware.body_limits import MAX_BODY_BYTES, add_body_limits
from backend.api.problems import ErrorAnswer, add_problem_handlers, render_errors_of
from backend.config import Settings
from backend.errors import TooManyJobs

pytestmark = pytest.mark.anyio

KEY = {"X-API-Key": "a-secret-of-twenty-four-characters"}


def render_flat(error: ErrorAnswer) -> Response:
    return JSONResponse({"error": {"message": error.detail, "code": error.status}}, error.status)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    group, plain = APIRouter(prefix="/group"), APIRouter()

    @group.get("/busy")
    @plain.get("/busy")
    async def refuse() -> None:
        raise TooManyJobs("Come back later.")

    @group.get("/broken")
    async def fail() -> None:
        raise ZeroDivisionError

    @group.post("/number")
    @plain.post("/groups")
    async def add_one(number: int) -> int:
        return number + 1

    @group.post("/length")
    async def measure(request: Request) -> int:
        return len(await request.body())

    app = FastAPI()
    settings = Settings(_env_file=None, api_keys=f"ada:{KEY['X-API-Key']}")
    add_problem_handlers(app)
    add_body_limits(app, settings)
    add_access(app, settings)
    app.include_router(group)
    app.include_router(plain)
    render_errors_of(app, group, render_flat)
    transport = httpx.ASGITransport(app, root_path="/prefix", raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost/prefix", headers=KEY) as opened:
        yield opened


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/group/busy", 429),
        ("GET", "/group/broken", 500),
        ("POST", "/group/number?number=one", 422),
        ("PUT", "/group/number", 405),
        ("GET", "/group/nothing", 404),
        ("GET", "/group", 404),
    ],
)
async def test_errors_of_the_group_have_its_form(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == status and answer.json()["error"]["message"]


async def test_errors_in_middleware_have_the_form_of_the_group(client: httpx.AsyncClient) -> None:
    unknown = await client.get("/group/busy", headers={"X-API-Key": "another"})
    assert unknown.status_code == 401 and unknown.json()["error"]["code"] == 401
    assert "Basic" in unknown.headers["www-authenticate"]
    large = await client.post("/group/length", content=bytes(2 * MAX_BODY_BYTES))
    assert large.status_code == 413 and large.json()["error"]["code"] == 413


async def test_the_headers_of_an_error_do_not_depend_on_its_form(client: httpx.AsyncClient) -> None:
    in_group, outside = await client.get("/group/busy"), await client.get("/busy")
    assert in_group.headers["retry-after"] == outside.headers["retry-after"] == "30"


@pytest.mark.parametrize(("path", "status"), [("/busy", 429), ("/groups", 405), ("/nothing", 404)])
async def test_errors_outside_the_group_are_problem_details(client: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await client.get(path)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status == answer.status_code


def test_a_renderer_needs_a_prefix() -> None:
    with pytest.raises(ValueError, match="prefix"):
        render_errors_of(FastAPI(), APIRouter(), render_flat)
