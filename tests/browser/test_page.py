"""The page at `/`, used as a person would."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.conftest import SAMPLE
from tests.support.processes import ServerProcess, serving, wait_until_ready

LONG_MS = 240_000
HOSTILE = "<img src=x onerror=document.title='run'>.flac"
UPLOAD_TIMES = """performance.getEntriesByType('resource')
    .filter((entry) => entry.name.endsWith('/audio/process'))
    .map((entry) => [entry.startTime, entry.responseEnd])"""
FETCH_ELSEWHERE = """() => new Promise((resolve) => {
    addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
    fetch('http://127.0.0.1:9/').then(() => resolve('sent'), () => setTimeout(() => resolve('not stopped'), 1000));
})"""
PHONE = {"width": 390, "height": 844}


def choose(page: Page, *files: Path | dict[str, object]) -> None:
    page.get_by_label("Choose recordings").set_input_files(list(files))


def title(page: Page) -> Locator:
    return page.get_by_role("heading", level=1)


def segments(page: Page) -> Locator:
    return page.locator("#segments > li")


def current_time_s(page: Page) -> float:
    return page.evaluate("document.querySelector('audio').currentTime")


def test_an_upload_shows_speakers_and_text(page: Page) -> None:
    page.goto("/")
    choose(page, SAMPLE)
    expect(page.locator("#jobs")).to_contain_text(re.compile("Reading…|Telling voices apart…|Transcribing…"))
    expect(title(page)).to_have_text("meeting.flac", timeout=LONG_MS)
    expect(page).to_have_url(re.compile("/#/conversations/conv_[0-9a-f]+$"))
    speakers = page.get_by_role("region", name="Speakers").get_by_role("listitem")
    expect(speakers).to_have_count(3)
    expect(speakers.first).to_contain_text(re.compile(r"Speaker 1.*\d+ %.*\d+ words", re.DOTALL))
    transcript = page.get_by_role("region", name="Transcript")
    expect(transcript).to_contain_text("library")
    expect(transcript).to_contain_text("Speaker 3")


def test_every_download_link_leads_to_its_file(page: Page, meeting: str) -> None:
    page.goto(f"/#/conversations/{meeting}")
    transcripts = {
        "Text": ("txt", "Speaker 1:"),
        "SRT": ("srt", "1\n"),
        "WebVTT": ("vtt", "WEBVTT"),
        "JSON": ("json", "{"),
    }
    for name, (ending, start) in transcripts.items():
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        assert download.value.suggested_filename.endswith(f".{ending}")
        assert Path(download.value.path()).read_text().startswith(start)
    with page.expect_download() as download:
        page.get_by_role("link", name="Recording", exact=True).click()
    assert download.value.suggested_filename == "meeting.flac"
    assert Path(download.value.path()).read_bytes() == SAMPLE.read_bytes()


def test_a_deep_link_reopens_a_conversation_that_plays_and_seeks(page: Page, meeting: str) -> None:
    page.goto(f"/#/conversations/{meeting}")
    last = segments(page).last
    last.get_by_role("button", name="Play from").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(last).to_have_attribute("aria-current", "true")
    start = current_time_s(page)
    page.wait_for_function("start => document.querySelector('audio').currentTime > start + 0.3", arg=start)
    page.get_by_role("button", name="Pause").click()
    position = page.get_by_role("slider", name="Position in the recording")
    position.fill("1")
    assert current_time_s(page) == pytest.approx(1, abs=0.1)
    expect(segments(page).first).to_have_attribute("aria-current", "true")
    expect(last).not_to_have_attribute("aria-current", "true")
    assert page.evaluate("document.querySelector('audio').buffered.length") > 0


def test_a_text_file_named_wav_shows_what_is_wrong(page: Page, server: ServerProcess) -> None:
    text = {"name": "notes.wav", "mimeType": "audio/wav", "buffer": b"Bring the lamps on Friday.\n" * 20}
    answer = httpx.post(f"{server.url}/audio/process", files={"file": ("notes.wav", text["buffer"])})
    assert answer.status_code == 415
    page.goto("/")
    choose(page, text)
    expect(page.get_by_role("alert")).to_contain_text(answer.json()["title"])
    expect(page.get_by_role("alert")).to_contain_text(answer.json()["detail"])
    page.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_options_are_sent_and_checked(page: Page, silence: Path) -> None:
    page.goto("/")
    page.get_by_text("Options for the next recording").click()
    page.get_by_label("Title").fill("Board, March")
    page.get_by_label("Language").select_option(label="English")
    page.get_by_label("at least").fill("3")
    page.get_by_label("at most").fill("2")
    choose(page, silence)
    expect(page.get_by_role("alert")).to_contain_text("min_speakers (3) is greater than max_speakers (2)")
    page.get_by_label("at most").fill("4")
    page.get_by_label("Title").fill("Board, March")
    choose(page, silence)
    expect(title(page)).to_have_text("Board, March")


def test_several_files_are_processed_one_after_the_other(page: Page, silence: Path) -> None:
    page.goto("/")
    files = [{"name": f"part {n}.wav", "mimeType": "audio/wav", "buffer": silence.read_bytes()} for n in (1, 2, 3)]
    choose(page, *files)
    expect(page.locator("#jobs").get_by_role("link", name="Open")).to_have_count(3)
    uploads = page.evaluate(UPLOAD_TIMES)
    assert len(uploads) == 3
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(uploads))
    newest_first = page.get_by_role("region", name="Recordings").locator(".row-name")
    expect(newest_first.nth(0)).to_have_text("part 3.wav")
    expect(newest_first.nth(2)).to_have_text("part 1.wav")


def test_silence_is_said_plainly(page: Page, silence: Path) -> None:
    page.goto("/")
    choose(page, silence)
    expect(page.get_by_text("Nothing was said.")).to_be_visible()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    expect(page.get_by_role("region", name="Transcript")).to_have_count(0)


def test_a_hostile_file_name_is_text_and_runs_nothing(page: Page, silence: Path) -> None:
    page.goto("/")
    choose(page, {"name": HOSTILE, "mimeType": "audio/flac", "buffer": silence.read_bytes()})
    expect(page.get_by_text("Nothing was said.")).to_be_visible()
    expect(title(page)).to_have_text(HOSTILE)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Recordings").click()
    expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    assert page.locator("img").count() == 0
    assert page.title() == "Aperta"


def test_a_hostile_transcript_is_text_and_runs_nothing(page: Page, server: ServerProcess, meeting: str) -> None:
    hostile = "<script>document.title='run'</script><img src=x onerror=document.title='run'>"
    body = httpx.get(f"{server.url}/conversations/{meeting}").json()
    body["transcript"]["segments"][0] |= {"text": hostile, "speaker": hostile}
    body["transcript"]["speaker_stats"][hostile] = body["transcript"]["speaker_stats"].pop("Speaker 1")
    page.route(f"**/conversations/{meeting}", lambda route: route.fulfill(json=body))
    page.goto(f"/#/conversations/{meeting}")
    expect(segments(page).first.locator("p")).to_have_text(hostile)
    assert page.locator("img, main script").count() == 0
    assert page.title() == "meeting.flac · Aperta"


def test_the_content_security_policy_stops_what_would_get_through(browser: Browser, server: ServerProcess) -> None:
    with browser.new_context(base_url=server.url) as context:
        page = context.new_page()
        page.goto("/")
        for sink in ("document.body.innerHTML = '<p>'", "document.body.setAttribute('onclick', 'alert()')"):
            refused = page.evaluate(f"() => {{ try {{ {sink} }} catch (error) {{ return error.name }} }}")
            assert refused == "TypeError"
        assert page.evaluate(FETCH_ELSEWHERE) == "connect-src"


def test_a_deleted_conversation_is_gone(page: Page, server: ServerProcess, silent_conversation: str) -> None:
    page.goto(f"/#/conversations/{silent_conversation}")
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("To be deleted")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("region", name="Recordings")).to_be_visible()
    expect(page.get_by_role("link", name="To be deleted")).to_have_count(0)
    assert httpx.get(f"{server.url}/conversations/{silent_conversation}").status_code == 404
    page.goto(f"/#/conversations/{silent_conversation}")
    expect(title(page)).to_have_text("Not found")


@pytest.mark.parametrize("address", ["conv_0", "..", "%2e%2e%2fhealth", "a%2Fb", "%"])
def test_an_address_that_names_nothing_says_so(page: Page, address: str) -> None:
    page.goto(f"/#/conversations/{address}")
    expect(title(page)).to_have_text("Not found")


def test_the_list_has_pages(page: Page) -> None:
    def answer(offset: int) -> str:
        row = {"title": None, "status": "failed", "recording_url": None, "transcript_url": None, "duration_s": None}
        rest = {"language": None, "speaker_count": None, "engines": None, "error": "no", "completed_at": None}
        named = [{"id": f"conv_{n}", "filename": f"take {n}.wav"} for n in range(offset, min(offset + 20, 45))]
        rows = [{**row, **rest, **name, "created_at": "2026-01-15T10:00:00Z"} for name in named]
        return json.dumps({"conversations": rows, "total": 45, "limit": 20, "offset": offset})

    def fulfil(route: object) -> None:
        offset = int(re.search(r"offset=(\d+)", route.request.url)[1])
        route.fulfill(content_type="application/json", body=answer(offset))

    page.route("**/conversations?*", fulfil)
    page.goto("/")
    expect(page.get_by_text(re.compile("^1.20 of 45"))).to_be_visible()
    page.get_by_role("link", name="Older").click()
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_text(re.compile("^41.45 of 45"))).to_be_visible()
    expect(page.get_by_role("link", name="take 44.wav")).to_contain_text("Failed")
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    page.go_back()
    expect(page.get_by_text(re.compile("^21.40 of 45"))).to_be_visible()


def test_the_keyboard_reaches_the_upload_and_the_player(page: Page, meeting: str) -> None:
    page.goto("/")
    expect(title(page)).to_be_visible()
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert reached[0] == "skip"
    assert "files" in reached
    page.goto(f"/#/conversations/{meeting}")
    expect(title(page)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("slider", name="Position in the recording")).to_be_focused()
    assert current_time_s(page) > 0


@pytest.mark.parametrize("address", ["/", "/#/conversations/{meeting}"])
def test_a_phone_needs_no_sideways_scrolling(page: Page, meeting: str, address: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto(address.format(meeting=meeting))
    expect(title(page)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_footer_names_engines_and_storage(page: Page, server: ServerProcess) -> None:
    page.goto("/")
    health = httpx.get(f"{server.url}/health").json()
    for name in (*health["engines"].values(), health["version"], str(server.folder / "uploads"), "free"):
        expect(page.locator("#state")).to_contain_text(name)
    expect(page.locator("#degraded")).to_be_hidden()


def test_a_store_that_does_not_answer_is_said(browser: Browser, tmp_path: Path, silence: Path) -> None:
    s3 = {
        "S3_BUCKET_NAME": "recordings",
        "S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    with serving(tmp_path, **s3) as server, browser.new_context(base_url=server.url) as context:
        wait_until_ready(server.url)
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_text("S3 is set up but not in use")).to_be_visible()
        choose(page, silence)
        expect(title(page)).to_have_text("silence.wav", timeout=LONG_MS)
        expect(page.locator("#conversation-notices")).to_contain_text(re.compile("S3|stored locally"))


def test_a_lost_server_is_said(browser: Browser, tmp_path: Path, silence: Path) -> None:
    with serving(tmp_path) as server, browser.new_context(base_url=server.url) as context:
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_text("Nothing here yet.")).to_be_visible()
        server.process.kill()
        server.process.wait()
        choose(page, silence)
        expect(page.get_by_role("alert").filter(has_text="Connection lost")).to_be_visible()


def test_a_file_can_be_dropped_anywhere(page: Page, silence: Path) -> None:
    page.goto("/")
    expect(title(page)).to_be_visible()
    dropped = page.evaluate_handle(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
            return transfer;
        }""",
        list(silence.read_bytes()),
    )
    page.dispatch_event("footer.bottom", "dragenter", {"dataTransfer": dropped})
    expect(page.locator("body")).to_have_class("dropping")
    page.dispatch_event("footer.bottom", "drop", {"dataTransfer": dropped})
    expect(title(page)).to_have_text("dropped.wav")
    expect(page.locator("body")).not_to_have_class("dropping")
