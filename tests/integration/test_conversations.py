"""Reading and deleting conversations over HTTP."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx
import pytest

from backend.wiring.services import Services
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio


@pytest.fixture
async def processed(client: httpx.AsyncClient, tmp_path: Path) -> dict[str, str]:
    recording = write(tmp_path / "meeting.wav", tone(2.0))
    answer = await client.post("/audio/process", files={"file": (recording.name, recording.read_bytes())})
    return {"id": answer.json()["conversation_id"], "path": answer.json()["audio_file_path"]}


async def test_the_list_is_newest_first_and_paged(client: httpx.AsyncClient, tmp_path: Path) -> None:
    recording = write(tmp_path / "meeting.wav", tone(1.0)).read_bytes()
    ids = []
    for number in range(3):
        form = {"title": f"number {number}"}
        answer = await client.post("/audio/process", files={"file": ("a.wav", recording)}, data=form)
        ids.append(answer.json()["conversation_id"])
    page = (await client.get("/conversations?limit=2")).json()
    assert [item["id"] for item in page["conversations"]] == ids[:0:-1] and page["total"] == 3
    rest = (await client.get("/conversations?limit=2&offset=2")).json()
    assert [item["title"] for item in rest["conversations"]] == ["number 0"]
    assert (await client.get("/conversations?status=failed")).json()["total"] == 0


async def test_a_conversation_shows_participants_objects_and_transcript(
    client: httpx.AsyncClient, processed: dict[str, str]
) -> None:
    body = (await client.get(f"/conversations/{processed['id']}")).json()
    assert [item["label"] for item in body["participants"]] == ["Speaker 1", "Speaker 2"]
    assert {item["kind"] for item in body["objects"]} == {"audio", "transcript", "metadata"}
    assert body["transcript"]["segments"][1]["words"] == [
        {"word": "Hello.", "start": 1.2, "end": 1.8, "probability": 0.8}
    ]
    assert body["created_at"].endswith("Z")


@pytest.mark.parametrize(
    ("query", "accept", "media", "starts"),
    [
        ("", "*/*", "text/plain", "Speaker 1: Good morning."),
        ("?format=srt", "application/json", "application/x-subrip", "1\n00:00:00,100 -->"),
        ("?format=vtt", "*/*", "text/vtt", "WEBVTT"),
        ("", "text/vtt", "text/vtt", "WEBVTT"),
        ("", "application/json", "application/json", '{"speaker_count":2'),
        ("", "text/html;q=0.9, text/vtt;q=0.1, application/json;q=0.5", "application/json", "{"),
        ("", "text/html, text/*;q=0.5", "text/plain", "Speaker 1"),
        ("", "", "text/plain", "Speaker 1"),
        ("", "text/plain;q=0, */*", "application/json", "{"),
        ("", "text/*;q=0, */*;q=0.1", "application/json", "{"),
        ("", "*/*;q=0.5, application/x-subrip; charset=utf-8; Q=0.6", "application/x-subrip", "1\n"),
    ],
)
async def test_the_transcript_comes_in_the_format_that_was_asked_for(
    client: httpx.AsyncClient, processed: dict[str, str], query: str, accept: str, media: str, starts: str
) -> None:
    answer = await client.get(f"/conversations/{processed['id']}/transcript{query}", headers={"Accept": accept})
    assert answer.status_code == 200 and answer.headers["content-type"].split(";")[0] == media
    assert answer.text.startswith(starts)


async def test_several_accept_headers_are_one_list(client: httpx.AsyncClient, processed: dict[str, str]) -> None:
    headers = [("Accept", "text/html"), ("Accept", "text/plain;q=0.1"), ("Accept", "text/vtt")]
    answer = await client.get(f"/conversations/{processed['id']}/transcript", headers=headers)
    assert answer.status_code == 200 and answer.text.startswith("WEBVTT")


async def test_a_format_nobody_has_is_refused(client: httpx.AsyncClient, processed: dict[str, str]) -> None:
    url = f"/conversations/{processed['id']}/transcript"
    for accept in ("image/png", "*/*;q=0", "text/plain;q=0"):
        assert (await client.get(url, headers={"Accept": accept})).status_code == 406
    assert (await client.get(f"{url}?format=doc")).status_code == 422


async def test_audio_is_served_whole_and_in_ranges(client: httpx.AsyncClient, processed: dict[str, str]) -> None:
    original = Path(processed["path"]).read_bytes()
    url = f"/conversations/{processed['id']}/audio"
    whole = await client.get(url)
    assert whole.content == original and whole.headers["x-content-type-options"] == "nosniff"
    assert 'filename="meeting.wav"' in whole.headers["content-disposition"]
    part = await client.get(url, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == original[100:200]
    end = await client.get(url, headers={"Range": "Bytes=-10"})
    assert end.status_code == 206 and end.content == original[-10:]
    both = await client.get(url, headers={"Range": "bytes=0-9, 20-29,"})
    assert both.status_code == 206 and both.headers["content-type"].startswith("multipart/byteranges")
    assert original[:10] in both.content and original[20:30] in both.content


@pytest.mark.parametrize("asked", ["bytes={size}-", "bytes=-0", "bytes=0-1,{size}-"])
async def test_a_range_after_the_end_is_a_problem_that_tells_the_size(
    client: httpx.AsyncClient, processed: dict[str, str], asked: str
) -> None:
    size = Path(processed["path"]).stat().st_size
    url = f"/conversations/{processed['id']}/audio"
    answer = await client.get(url, headers={"Range": asked.format(size=size)})
    assert answer.status_code == 416 and answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-range"] == f"bytes */{size}" and str(size) in answer.json()["detail"]


@pytest.mark.parametrize(
    "asked",
    ["bytes=5-2", "bytes=9999999-5", "bytes=", "bytes=-", "bytes=,", "bytes=a-b", "bytes=0-1,x", "foo=1-2", "7"],
)
async def test_a_malformed_range_is_ignored(client: httpx.AsyncClient, processed: dict[str, str], asked: str) -> None:
    answer = await client.get(f"/conversations/{processed['id']}/audio", headers={"Range": asked})
    assert answer.status_code == 200 and answer.content == Path(processed["path"]).read_bytes()


async def test_head_tells_what_get_would_send(client: httpx.AsyncClient, processed: dict[str, str]) -> None:
    for path in ("audio", "transcript"):
        url = f"/conversations/{processed['id']}/{path}"
        same = {"X-Request-ID": "monday"}
        head, got = await client.head(url, headers=same), await client.get(url, headers=same)
        assert head.status_code == 200 and head.headers == got.headers
    assert (await client.head("/conversations/conv_nope/audio")).status_code == 404


@pytest.mark.parametrize("header", ["If-None-Match", "If-Modified-Since"])
async def test_a_recording_that_the_client_has_is_not_sent_again(
    client: httpx.AsyncClient, processed: dict[str, str], header: str
) -> None:
    url = f"/conversations/{processed['id']}/audio"
    got = await client.get(url)
    assert got.headers["etag"] == f'"{hashlib.sha256(got.content).hexdigest()}"'
    asked = {header: got.headers["etag" if header == "If-None-Match" else "last-modified"]}
    for again in (await client.get(url, headers=asked), await client.head(url, headers=asked)):
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == got.headers["etag"]


async def test_a_range_is_given_only_of_what_the_client_has_the_rest_of(
    client: httpx.AsyncClient, processed: dict[str, str]
) -> None:
    url = f"/conversations/{processed['id']}/audio"
    etag = (await client.head(url)).headers["etag"]
    same = await client.get(url, headers={"Range": "bytes=0-9", "If-Range": etag})
    other = await client.get(url, headers={"Range": "bytes=0-9", "If-Range": '"of another recording"'})
    assert (same.status_code, len(same.content)) == (206, 10)
    assert other.status_code == 200 and len(other.content) > 10


async def test_deleting_removes_rows_and_files(
    client: httpx.AsyncClient, processed: dict[str, str], stored_files: Callable[[], list[str]]
) -> None:
    assert len(stored_files()) == 3
    url = f"/conversations/{processed['id']}"
    assert (await client.delete(url)).status_code == 204
    assert stored_files() == []
    assert (await client.get(url)).status_code == 404 and (await client.delete(url)).status_code == 404
    assert (await client.get("/conversations")).json()["total"] == 0


async def test_a_recording_that_vanished_from_disk_is_a_404_that_says_so(
    client: httpx.AsyncClient, processed: dict[str, str]
) -> None:
    Path(processed["path"]).unlink()
    answer = await client.get(f"/conversations/{processed['id']}/audio")
    assert answer.status_code == 404 and answer.json()["type"] == "urn:aperta:problem:object-missing"


@pytest.mark.parametrize("moment", ["found", "opened"])
async def test_a_recording_that_is_deleted_while_it_is_fetched_is_a_404_that_says_so(
    client: httpx.AsyncClient,
    services: Services,
    processed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    owner, name = (services.storage, "access") if moment == "found" else (anyio, "open_file")
    real = getattr(owner, name)

    async def delete_meanwhile(*args: object, **options: object) -> object:
        if moment == "opened":
            Path(processed["path"]).unlink()
            return await real(*args, **options)
        found = await real(*args, **options)
        Path(processed["path"]).unlink()
        return found

    monkeypatch.setattr(owner, name, delete_meanwhile)
    answer = await client.get(f"/conversations/{processed['id']}/audio", headers={"Range": "bytes=0-9"})
    assert answer.status_code == 404 and answer.json()["type"] == "urn:aperta:problem:object-missing"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["", "/transcript", "/audio"])
async def test_an_unknown_conversation_is_a_404_problem(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/conversations/conv_nope{path}")
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"
    assert "conv_nope" in answer.json()["detail"]


async def test_bad_paging_and_unknown_paths_are_problems(client: httpx.AsyncClient) -> None:
    for url, status in [("/conversations?limit=0", 422), ("/conversations?offset=-1", 422), ("/nothing", 404)]:
        answer = await client.get(url)
        assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    assert (await client.put("/conversations")).status_code == 405


async def test_storage_info_and_health_tell_the_truth(client: httpx.AsyncClient, tmp_path: Path) -> None:
    info = (await client.get("/audio/storage-info")).json()
    assert info["storage_type"] == "local" and info["local_path"] == str(tmp_path / "uploads")
    assert info["s3_bucket"] is None and info["s3_enabled"] is False
    health = (await client.get("/health")).json()
    assert health["status"] == "ok" and health["engines"]["transcription"] == "scripted"
    assert any("CC BY 4.0" in line for line in health["attribution"])
    assert (await client.get("/health/live")).status_code == 204


async def test_health_tells_what_confines_decoders(client: httpx.AsyncClient) -> None:
    confinement = (await client.get("/health")).json()["confinement"]
    assert confinement["seccomp"] and confinement["no_new_privs"] and confinement["network"] != "nothing"
    assert set(confinement) == {"landlock", "seccomp", "no_new_privs", "user_namespace", "unprivileged", "network"}


async def test_ready_is_503_until_the_models_are_loaded(client: httpx.AsyncClient, services: object) -> None:
    answer = await client.get("/health/ready")
    assert answer.status_code == 503 and answer.headers["retry-after"]
    await services.speech.warm()  # type: ignore[attr-defined]
    assert (await client.get("/health/ready")).status_code == 204


async def test_an_id_that_no_database_takes_is_a_404(client: httpx.AsyncClient) -> None:
    assert (await client.get("/conversations/a%00b")).status_code == 404


async def test_openapi_is_complete_and_offers_a_file_picker(client: httpx.AsyncClient) -> None:
    text = (await client.get("/openapi.json")).text
    assert "#/$defs" not in text
    document = json.loads(text)
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in document["components"]["schemas"]
    form = document["paths"]["/audio/process"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["format"] == "binary" and "required" not in form
    assert form["properties"]["num_speakers"]["type"] == "integer"


async def test_openapi_names_what_is_really_sent(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert [path for path, methods in paths.items() if "head" in methods] == ["/uploads/{upload_id}"]
    assert "409" in paths["/audio/process"]["post"]["responses"]
    for path in ("/people", "/people/{person_id}/voice"):
        assert "400" in paths[path]["post"]["responses"]
    audio = paths["/conversations/{conversation_id}/audio"]["get"]["responses"]
    assert list(audio["200"]["content"]) == ["audio/*"]
    transcript = paths["/conversations/{conversation_id}/transcript"]["get"]["responses"]["200"]["content"]
    assert set(transcript) == {"text/plain", "application/json", "text/vtt", "application/x-subrip"}
    assert transcript["application/json"]["schema"] == {"$ref": "#/components/schemas/TranscriptOut"}


async def test_metrics_count_what_ended_how_and_how_fast(client: httpx.AsyncClient, processed: dict[str, str]) -> None:
    assert processed
    await client.post("/audio/process", files={"file": ("a.wav", b"no sound")})
    text = (await client.get("/metrics")).text
    assert 'aperta_recordings_total{outcome="completed"} 1.0' in text
    assert 'aperta_recordings_total{outcome="refused"} 1.0' in text
    assert "aperta_audio_seconds_total 2.0" in text
    assert 'aperta_stage_seconds_count{stage="transcribe"} 1.0' in text
    assert "aperta_real_time_factor_count 1.0" in text
