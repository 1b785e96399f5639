"""Which names the server answers to, whose forwarded headers it believes, and the addresses it gives of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from backend.config import Settings
from tests.conftest import api
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

KEY = SecretStr("ada:correct-horse-battery")
HEADER = {"X-API-Key": "correct-horse-battery"}
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}


@asynccontextmanager
async def client_of(settings: Settings, **changed: object) -> AsyncIterator[httpx.AsyncClient]:
    async with api(settings.model_copy(update=changed)) as (client, _):
        yield client


async def status_of(client: httpx.AsyncClient, host: str, **headers: str) -> int:
    return (await client.get("/conversations", headers={"Host": host, **headers})).status_code


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:8000", "127.0.0.1:8000", "192.0.2.7", "[::1]:8000"])
async def test_its_own_names_are_served(client: httpx.AsyncClient, host: str) -> None:
    assert await status_of(client, host) == 200


@pytest.mark.parametrize(
    "host", ["attacker.example:8000", "localhost.evil", "127.0.0.1.nip.io", "2130706433", "0177.0.0.1", "x.localhost"]
)
async def test_other_names_are_refused_and_the_remedy_is_named(client: httpx.AsyncClient, host: str) -> None:
    answer = await client.get("/conversations", headers={"Host": host, "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 421 and answer.headers["content-type"] == "application/problem+json"
    assert "ALLOWED_HOSTS" in answer.json()["detail"] and host.split(":")[0] in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/docs", "/health/live", "/assets/web/app.js", "/nothing", "/openapi.json"])
async def test_other_names_are_refused_everywhere(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path, headers={"Host": "attacker.example"})).status_code == 421


@pytest.mark.parametrize("host", ["", "[", "user@localhost", "localhost:99999", "localhost/x", "a b"])
async def test_a_host_that_is_none_is_400(client: httpx.AsyncClient, host: str) -> None:
    answer = await client.get("/conversations", headers={"Host": host})
    assert answer.status_code == 400 and "Host" in answer.json()["detail"]


async def test_a_doubled_host_is_400(client: httpx.AsyncClient) -> None:
    answer = await client.get("/conversations", headers=[("Host", "localhost"), ("Host", "localhost")])
    assert answer.status_code == 400


async def test_listed_names_and_the_name_to_listen_on_are_served(settings: Settings) -> None:
    async with client_of(settings, allowed_hosts="aperta.example.org,*.lan", host="box.home") as client:
        hosts = ("aperta.example.org", "a.lan", "box.home", "localhost", "lan", "other.example.org")
        assert [await status_of(client, host) for host in hosts] == [200, 200, 200, 200, 421, 421]


async def test_with_keys_every_name_is_served_unless_some_are_listed(settings: Settings) -> None:
    async with client_of(settings, api_keys=KEY) as client:
        assert await status_of(client, "any.example", **HEADER) == 200
        assert await status_of(client, "any.example") == 401
        assert await status_of(client, "a b", **HEADER) == 400
    async with client_of(settings, api_keys=KEY, allowed_hosts="one.example") as client:
        assert await status_of(client, "one.example", **HEADER) == 200
        assert await status_of(client, "any.example", **HEADER) == 421


async def test_a_rebound_page_cannot_name_itself_by_a_forwarded_header(client: httpx.AsyncClient) -> None:
    assert await status_of(client, "attacker.example", **{"X-Forwarded-Host": "localhost"}) == 421


async def test_a_trusted_proxy_says_what_the_client_asked_for(settings: Settings) -> None:
    async with client_of(settings, allowed_hosts="aperta.example.org") as client:
        own, origin = {"X-Forwarded-Host": "aperta.example.org"}, {"Origin": "https://aperta.example.org"}
        assert (await client.delete("/conversations/x", headers=own | origin)).status_code == 404
        assert (await client.delete("/conversations/x", headers=origin)).status_code == 403
        assert await status_of(client, "localhost", **{"X-Forwarded-Host": "aperta.example.org, evil.example"}) == 421
        assert await status_of(client, "localhost", **{"X-Forwarded-Host": "evil.example, aperta.example.org"}) == 200
        assert await status_of(client, "localhost", **{"X-Forwarded-Host": "a@b"}) == 400


async def test_a_page_over_http_is_not_ours_where_we_are_reached_over_https(client: httpx.AsyncClient) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "Origin": "http://localhost"}
    assert (await client.delete("/conversations/x", headers=forwarded)).status_code == 403


async def test_other_peers_forwarded_headers_do_not_count(settings: Settings) -> None:
    async with client_of(settings, forwarded_allow_ips="192.0.2.1") as client:
        headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/x", "X-Forwarded-Proto": "https"}
        begun = await client.post("/uploads", headers=TUS | headers | {"Origin": "http://localhost"})
        assert begun.status_code == 201 and begun.headers["location"].startswith("/uploads/")


@pytest.mark.parametrize("where", ["setting", "header"])
@pytest.mark.parametrize("path", ["/aperta{}", "{}"])  # left on by the proxy, and taken off
async def test_below_a_prefix_every_address_has_it(settings: Settings, tmp_path: Path, where: str, path: str) -> None:
    recording = write(tmp_path / "meeting.wav", tone(2.0))
    prefix = "/aperta" if where == "setting" else None
    async with client_of(settings, root_path=prefix) as client:
        client.headers.update({} if prefix else {"X-Forwarded-Prefix": "/aperta"})
        files = {"file": (recording.name, recording.read_bytes())}
        job = await client.post(path.format("/audio/process?async=true"), files=files)
        assert job.headers["location"] == f"/aperta/jobs/{job.json()['id']}"
        assert (await client.get(job.headers["location"])).status_code == 200
        upload = await client.post(path.format("/uploads"), headers=TUS)
        assert upload.headers["location"].startswith("/aperta/uploads/upload_")
        head = await client.head(upload.headers["location"], headers={"Tus-Resumable": "1.0.0"})
        assert head.status_code == 200
        document = (await client.get(path.format("/openapi.json"))).json()
        assert document["servers"] == [{"url": "/aperta"}]
        for name in ("/", "/docs", "/assets/web/app.js", "/assets/swagger-ui/swagger-ui.css"):
            assert (await client.get(path.format(name))).status_code == 200
        assert (await client.get(path.format("/nothing"))).json()["instance"] == "/aperta/nothing"


async def test_a_prefix_of_one_client_is_not_shown_to_another(client: httpx.AsyncClient) -> None:
    await client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/mine"})
    assert "servers" not in (await client.get("/openapi.json")).json()


@pytest.mark.parametrize("prefix", ["//evil.example", "/a/../..", "evil"])
async def test_a_prefix_that_leads_elsewhere_is_400(client: httpx.AsyncClient, prefix: str) -> None:
    assert (await client.get("/docs", headers={"X-Forwarded-Prefix": prefix})).status_code == 400


async def test_a_prefix_opens_nothing_that_needs_a_key(settings: Settings) -> None:
    async with client_of(settings, api_keys=KEY) as client:
        for prefix, path in (("/health/live", "/conversations"), ("/x", "/x/conversations"), ("/assets", "/people")):
            answer = await client.get(path, headers={"X-Forwarded-Prefix": prefix})
            assert answer.status_code == 401, (prefix, path)


@pytest.mark.parametrize("path", ["/conversations/", "/docs/", "/assets/web", "/assets/swagger-ui", "//evil.example/"])
async def test_a_slash_too_many_or_too_few_leads_nowhere(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"http://localhost{path}", headers={"X-Forwarded-Proto": "http"})
    assert answer.status_code == 404 and "location" not in answer.headers


@pytest.mark.parametrize("value", ["10.0.0.0/33", "proxy.lan", "127.0.0.1,"])
def test_a_proxy_that_is_no_address_is_an_invalid_setting(value: str) -> None:
    with pytest.raises(ValueError, match="forwarded_allow_ips"):
        Settings(forwarded_allow_ips=value)
