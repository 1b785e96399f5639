"""Behind a real nginx that shows Aperta below a path, with the `location` of docs/PROXIES.md."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from tusclient.client import TusClient

from tests.conftest import ROOT
from tests.support.media import tone, write
from tests.support.nginx import nginx
from tests.support.processes import ServerProcess, serving

PREFIX = "/aperta"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server"), DIARIZATION_ENGINE="none") as running:
        yield running


@pytest.fixture(scope="module")
def proxied(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page behind the proxy."""
    [location] = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "PROXIES.md").read_text(), re.DOTALL)
    with nginx(tmp_path_factory.mktemp("nginx"), location.replace("http://127.0.0.1:8000", server.url)) as url:
        yield f"{url}{PREFIX}/"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


@pytest.mark.parametrize("name", ["", "docs"])
def test_a_page_finds_its_scripts_styles_and_icons(proxied: str, name: str) -> None:
    page = httpx.get(urljoin(proxied, name))
    found = re.findall(r'(?:src|href)="(assets/[^"]+)"', page.text)
    assert page.status_code == 200 and len(found) > 2
    assert {asset: httpx.get(urljoin(str(page.url), asset)).status_code for asset in found} == dict.fromkeys(found, 200)


def test_the_openapi_document_names_the_prefix(proxied: str) -> None:
    assert httpx.get(urljoin(proxied, "openapi.json")).json()["servers"] == [{"url": PREFIX}]


def test_location_of_a_job_leads_to_the_job(proxied: str, recording: Path) -> None:
    url = urljoin(proxied, "audio/process?async=true")
    with recording.open("rb") as file:
        accepted = httpx.post(url, files={"file": (recording.name, file)}, timeout=60)
    assert accepted.status_code == 202, accepted.text
    assert httpx.get(urljoin(url, accepted.headers["location"])).json()["id"] == accepted.json()["id"]


def test_a_resumable_upload_goes_on_at_its_location(proxied: str, recording: Path) -> None:
    with recording.open("rb") as file:
        uploader = TusClient(urljoin(proxied, "uploads")).uploader(file_stream=file, chunk_size=20_000)
        uploader.upload()
    assert uploader.offset == recording.stat().st_size
    assert uploader.url.startswith(urljoin(proxied, "uploads/upload_"))


def test_events_come_while_they_happen(proxied: str, recording: Path) -> None:
    with recording.open("rb") as file:
        files = {"file": (recording.name, file)}
        job = httpx.post(urljoin(proxied, "audio/process?async=true"), files=files, timeout=60).json()["id"]
    with httpx.stream("GET", urljoin(proxied, f"jobs/{job}/events"), timeout=120) as events:
        lines = [line for line in events.iter_lines() if line.startswith("event:")]
    assert lines[-1] == "event: completed"


def test_a_body_is_refused_while_it_arrives(proxied: str) -> None:
    url = httpx.URL(proxied)
    head = f"POST {url.path}people HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection((url.host, url.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"x" * 2_000_000)
        assert b" 413 " in connection.makefile("rb").readline()


def test_our_page_may_write_and_others_may_not(proxied: str) -> None:
    own = re.match(r"http://[^/]+", proxied)
    assert own
    for origin, status in ((own[0], 404), ("http://127.0.0.1:1", 403), ("https://elsewhere.example", 403)):
        answer = httpx.delete(urljoin(proxied, "conversations/conv_1"), headers={"Origin": origin})
        assert answer.status_code == status, origin


def test_a_client_cannot_forge_what_the_proxy_says(proxied: str) -> None:
    forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"}
    answer = httpx.get(urljoin(proxied, "openapi.json"), headers=forged)
    assert answer.status_code == 200 and answer.json()["servers"] == [{"url": PREFIX}]


def test_a_name_that_is_not_ours_is_refused_behind_it_too(proxied: str) -> None:
    assert httpx.get(proxied, headers={"Host": "attacker.example"}).status_code == 421
