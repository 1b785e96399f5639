"""Keys: who is let in, by which header, and what an administrator alone may do; and orders from other sites' pages."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest
from pydantic import SecretStr

from backend.config import Settings
from backend.main import create_app
from backend.wiring.services import Services
from tests.conftest import api
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

ADA, BOB = ("ada", "correct-horse-battery"), ("bob", "staple:of+the~office")
TUS = {"Tus-Resumable": "1.0.0"}
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Ada is an administrator, Bob is not."""
    keys = SecretStr(f"{':'.join(ADA)}, {':'.join(BOB)}")
    return settings.model_copy(update={"api_keys": keys, "api_admins": "ada"})


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def upload_of(recording: Path) -> dict[str, tuple[str, bytes]]:
    return {"file": (recording.name, recording.read_bytes())}


def assert_refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status and answer.json()["detail"]
    assert "x-request-id" in answer.headers
    if status == 401:
        assert answer.headers["www-authenticate"] == 'Basic realm="Aperta", charset="UTF-8"'
    assert ADA[1] not in answer.text and BOB[1] not in answer.text


class CountedBody:
    """A body that knows how much of it was asked for."""

    def __init__(self) -> None:
        self.pieces = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(100):
            self.pieces += 1
            yield b"x" * 1000


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/assets/web/app.js", "/assets/web/favicon.svg"])
async def test_probes_and_assets_need_no_key(client: httpx.AsyncClient, services: Services, path: str) -> None:
    await services.speech.warm()
    assert (await client.get(path)).status_code in (200, 204)


async def test_every_other_route_needs_one(client: httpx.AsyncClient, settings: Settings) -> None:
    documented = create_app(settings).openapi()["paths"]
    routes = {(method.upper(), path) for path, methods in documented.items() for method in methods}
    hidden = {("GET", path) for path in ("/", "/docs", "/openapi.json", "/nothing", "/health/live/", "/assetsX")}
    asked = (routes - {("GET", "/health/live"), ("GET", "/health/ready")}) | hidden
    assert {route: (await client.request(*route)).status_code for route in asked} == dict.fromkeys(asked, 401)


async def test_the_refusal_is_a_problem_that_makes_browsers_ask(client: httpx.AsyncClient) -> None:
    assert_refused(await client.get("/"), 401)


@pytest.mark.parametrize(
    "headers",
    [
        basic(":".join(BOB)),
        {"Authorization": basic(":".join(BOB))["Authorization"].replace("Basic", "BASIC")},
        {"Authorization": f"Bearer {BOB[1]}"},
        {"X-API-Key": BOB[1]},
        {"X-API-Key": BOB[1], **basic("proxy:another password")},
    ],
)
async def test_a_key_opens_by_each_header(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await client.get("/conversations", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        basic(f"bob:{ADA[1]}"),
        basic(f"bob:{BOB[1]}!"),
        basic(BOB[1]),
        basic("bob:"),
        basic(f"böb:{BOB[1]}"),
        {"Authorization": "Basic bob"},
        {"Authorization": b"Basic \xff\xfe"},
        {"Authorization": "Basic"},
        {"Authorization": f"Bearer {':'.join(BOB)}"},
        {"Authorization": f"Digest {BOB[1]}"},
        {"Authorization": BOB[1]},
        {"X-API-Key": "bob"},
        {"X-API-Key": b"\xff\xfe"},
        {"X-API-Key": "wrong", **basic(":".join(BOB))},
    ],
)
async def test_anything_else_is_401(client: httpx.AsyncClient, headers: dict[str, str | bytes]) -> None:
    assert_refused(await client.get("/conversations", headers=headers), 401)


@pytest.mark.parametrize("path", ["/audio/process", "/uploads", "/people", "/storage/verify"])
async def test_a_stranger_is_refused_before_the_body_is_read(client: httpx.AsyncClient, path: str) -> None:
    body = CountedBody()
    assert_refused(await client.post(path, content=body, headers=BOUNDARY), 401)
    assert body.pieces == 0


async def test_with_a_key_the_body_is_read(client: httpx.AsyncClient) -> None:
    body = CountedBody()
    await client.post("/audio/process", content=body, headers=BOUNDARY, auth=BOB)
    assert body.pieces > 0


async def test_strangers_come_to_no_place_among_the_uploads(settings: Settings, recording: Path) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        begun.set()
        await go_on.wait()

    one_place = settings.model_copy(update={"max_concurrent_uploads": 1})
    async with api(one_place) as (client, _), anyio.create_task_group() as tasks:
        tasks.start_soon(partial(client.post, "/audio/process", content=slow_body(), headers=BOUNDARY, auth=ADA))
        await begun.wait()
        with_key, without = [
            (await client.post("/audio/process", files=upload_of(recording), auth=auth)).status_code
            for auth in (BOB, None)
        ]
        go_on.set()
    assert (with_key, without) == (503, 401)


async def test_the_stores_are_for_administrators(client: httpx.AsyncClient) -> None:
    asked = {"max_objects": 10}
    for auth, status in ((ADA, 200), (BOB, 403)):
        assert (await client.get("/storage/usage", auth=auth)).status_code == status
        for path in ("/storage/verify", "/storage/repair"):
            assert (await client.post(path, json=asked, auth=auth)).status_code == status
        assert (await client.post("/storage/drain", json={}, auth=auth)).status_code == status
    assert_refused(await client.get("/storage/usage", auth=BOB), 403)


async def test_who_is_no_administrator_is_refused_before_the_body_is_read(client: httpx.AsyncClient) -> None:
    body = CountedBody()
    answer = await client.post("/storage/repair", content=body, headers={"Content-Type": "application/json"}, auth=BOB)
    assert_refused(answer, 403)
    assert body.pieces == 0


async def test_every_key_is_an_administrators_unless_some_are_named(settings: Settings) -> None:
    async with api(settings.model_copy(update={"api_admins": None})) as (client, _):
        assert (await client.get("/storage/usage", auth=BOB)).status_code == 200


async def test_a_team_shares_recordings_and_jobs(client: httpx.AsyncClient, recording: Path) -> None:
    accepted = await client.post("/audio/process?async=true", files=upload_of(recording), auth=ADA)
    assert accepted.status_code == 202, accepted.text
    job, conversation = accepted.json()["id"], accepted.json()["conversation_id"]
    assert (await client.get(f"/jobs/{job}", auth=BOB)).status_code == 200
    assert (await client.get(f"/jobs/{job}/events", auth=BOB)).status_code == 200  # until it has ended
    assert (await client.get(f"/conversations/{conversation}/audio", auth=BOB)).content == recording.read_bytes()
    assert (await client.delete(f"/conversations/{conversation}", auth=BOB)).status_code == 204


async def test_each_key_has_its_own_limit_of_waiting_recordings(settings: Settings, recording: Path) -> None:
    nobody_works = {"workers": "none", "max_queued_jobs_per_key": 1}
    async with api(settings.model_copy(update=nobody_works)) as (client, _):
        answers = [
            await client.post("/audio/process?async=true", files=upload_of(recording), auth=auth)
            for auth in (ADA, ADA, BOB)
        ]
    assert [answer.status_code for answer in answers] == [202, 429, 202]
    assert "MAX_QUEUED_JOBS_PER_KEY" in answers[1].json()["detail"]


async def test_an_idempotency_key_is_its_owners(client: httpx.AsyncClient, recording: Path) -> None:
    ids = [
        (
            await client.post(
                "/audio/process", files=upload_of(recording), auth=auth, headers={"Idempotency-Key": "monday"}
            )
        ).json()["conversation_id"]
        for auth in (ADA, ADA, BOB)
    ]
    assert ids[0] == ids[1] != ids[2]


async def test_an_upload_is_its_owners_alone(client: httpx.AsyncClient, recording: Path) -> None:
    data = recording.read_bytes()
    begun = await client.post("/uploads", headers=TUS | {"Upload-Length": str(len(data))}, auth=ADA)
    url = begun.headers["location"]
    piece = TUS | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    use = {"files": {"upload_id": (None, url.rpartition("/")[2])}}
    override = TUS | {"X-HTTP-Method-Override": "DELETE"}

    body = CountedBody()
    for refused in (
        await client.patch(url, headers=piece, content=body, auth=BOB),
        await client.delete(url, headers=TUS, auth=BOB),
        await client.post(url, headers=override, auth=BOB),
        await client.post(f"{url}/complete", auth=BOB),
        await client.post("/audio/process", **use, auth=BOB),
    ):
        assert_refused(refused, 404)
    assert (await client.head(url, headers=TUS, auth=BOB)).status_code == 404
    assert body.pieces == 0

    assert (await client.patch(url, headers=piece, content=data, auth=ADA)).status_code == 204
    assert_refused(await client.post("/audio/process", **use, auth=BOB), 404)
    assert (await client.post("/audio/process", **use, auth=ADA)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "something new"},
        {"Sec-Fetch-Site": "same-origin, cross-site"},
        {"Origin": "http://user@localhost"},
        {"Origin": "ftp://localhost"},
        {"Origin": ""},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "http://localhost:81"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("with_keys", [True, False])
async def test_a_page_of_another_site_may_not_change_anything(
    settings: Settings, headers: dict[str, str], with_keys: bool
) -> None:
    changed = settings if with_keys else settings.model_copy(update={"api_keys": None, "api_admins": None})
    async with api(changed) as (client, _):
        body = CountedBody()
        answer = await client.post("/audio/process", content=body, headers=headers | BOUNDARY, auth=ADA)
        assert_refused(answer, 403)
        assert body.pieces == 0
        assert_refused(await client.delete("/conversations/conv_1", headers=headers, auth=ADA), 403)
        assert (await client.get("/conversations", headers=headers, auth=ADA)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://LOCALHOST:80"},
        {"Origin": "https://localhost"},
        {"Origin": "http://localhost"},
        {},
    ],
)
async def test_our_page_and_programs_may(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await client.delete("/conversations/conv_1", headers=headers, auth=ADA)).status_code == 404


async def test_openapi_names_the_ways_to_log_in(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json", auth=BOB)).json()
    schemes = document["components"]["securitySchemes"]
    assert {(scheme["type"], scheme.get("scheme", scheme.get("name"))) for scheme in schemes.values()} == {
        ("http", "basic"),
        ("http", "bearer"),
        ("apiKey", "X-API-Key"),
    }
    assert document["security"] == [{name: []} for name in schemes]
    paths = document["paths"]
    assert paths["/health/live"]["get"]["security"] == []
    assert "security" not in paths["/audio/process"]["post"] and "401" in paths["/audio/process"]["post"]["responses"]
    assert {"401", "403"} <= set(paths["/storage/usage"]["get"]["responses"])


async def test_without_keys_there_is_no_log_in(settings: Settings) -> None:
    async with api(settings.model_copy(update={"api_keys": None, "api_admins": None})) as (client, _):
        assert (await client.get("/storage/usage", headers={"Authorization": "Basic nonsense"})).status_code == 200
        assert "security" not in (await client.get("/openapi.json")).json()
