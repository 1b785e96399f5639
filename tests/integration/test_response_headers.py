"""What every answer tells browsers and caches: nothing is guessed, framed or kept."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from backend.wiring.services import Services
from tests.conftest import send
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def assert_guarded(answer: httpx.Response, kept: str = "no-store") -> None:
    assert {name: answer.headers.get(name) for name in EVERYWHERE} == EVERYWHERE
    policy = [item.strip() for item in answer.headers["content-security-policy"].split(";")]
    assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} <= set(policy)
    assert not any("script-src" in item and "unsafe" in item for item in policy)
    assert answer.headers["cache-control"] == kept


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/conversations", "/nothing", "/metrics", "/health/live"]
)
async def test_pages_data_and_errors_are_guarded_and_kept_by_nobody(client: httpx.AsyncClient, path: str) -> None:
    assert_guarded(await client.get(path))


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Host": "["}, {"X-Forwarded-Prefix": "//x"}])
async def test_so_are_refusals(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert_guarded(await client.get("/", headers=headers))


async def test_so_are_answers_to_unexpected_errors(client: httpx.AsyncClient, services: Services) -> None:
    client._transport.app.state.services = None  # type: ignore[attr-defined]
    answer = await client.get("/conversations")
    assert answer.status_code == 500
    assert_guarded(answer)


async def test_scripts_are_asked_about_each_time_and_not_sent_again(client: httpx.AsyncClient) -> None:
    for path in ("/assets/web/app.js", "/assets/swagger-ui/swagger-ui.css"):
        first = await client.get(path)
        assert_guarded(first, "public, no-cache")
        again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        assert_guarded(again, "public, no-cache")


async def test_a_recording_is_asked_about_each_time_and_its_transcript_not_kept(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    conversation = (await send(client, write(tmp_path / "a.wav", tone(2.0)))).json()["conversation_id"]
    for headers, status in (({}, 200), ({"Range": "bytes=0-9"}, 206)):
        answer = await client.get(f"/conversations/{conversation}/audio", headers=headers)
        assert answer.status_code == status and answer.headers["etag"]
        assert_guarded(answer, "private, no-cache")
    etag = answer.headers["etag"]
    unchanged = await client.get(f"/conversations/{conversation}/audio", headers={"If-None-Match": etag})
    assert unchanged.status_code == 304 and unchanged.headers["etag"] == etag
    assert_guarded(unchanged, "private, no-cache")
    assert_guarded(await client.head(f"/conversations/{conversation}/audio"), "private, no-cache")
    beyond = await client.get(f"/conversations/{conversation}/audio", headers={"Range": "bytes=999999999-"})
    assert beyond.status_code == 416
    assert_guarded(beyond)
    for form in ("txt", "json", "srt", "vtt"):
        assert_guarded(await client.get(f"/conversations/{conversation}/transcript?format={form}"))


async def test_events_of_a_job_are_not_kept(client: httpx.AsyncClient, tmp_path: Path) -> None:
    job = (await send(client, write(tmp_path / "a.wav", tone(2.0)), "?async=true")).json()["id"]
    answer = await client.get(f"/jobs/{job}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert_guarded(answer)
