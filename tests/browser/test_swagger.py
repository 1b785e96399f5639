"""Swagger UI at `/docs`: complete without any other server, and it works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect


@pytest.fixture
def docs(page: Page) -> Page:
    page.goto("/docs")
    return page


def operation(docs: Page, method: str, path: str) -> Locator:
    block = docs.locator(f".opblock-{method}").filter(has=docs.locator(f'[data-path="{path}"]'))
    block.locator(".opblock-summary-control").click()
    return block


def execute(block: Locator) -> tuple[str, dict[str, object]]:
    """Press Execute; returns status and JSON body of the answer."""
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response")
    expect(answer).to_be_visible()
    body = answer.locator(".response-col_description .highlight-code code").first.inner_text()
    return answer.locator(".response-col_status").inner_text().split()[0], json.loads(body)


def test_it_lists_the_operations(docs: Page) -> None:
    expect(docs.locator(".opblock-post").filter(has_text="/audio/process")).to_be_visible()
    expect(docs.get_by_text("Transcribe a recording: who said what")).to_be_visible()
    expect(docs).to_have_title("Aperta API")


def test_it_can_ask_where_recordings_are_stored(docs: Page) -> None:
    status, body = execute(operation(docs, "get", "/audio/storage-info"))
    assert status == "200"
    assert body["storage_type"] == "local"


def test_its_file_picker_processes_a_recording(docs: Page, silence: Path) -> None:
    block = operation(docs, "post", "/audio/process")
    block.locator("input[type=file]").set_input_files(silence)
    status, body = execute(block)
    assert status == "200"
    assert body["conversation_id"].startswith("conv_")
    assert body["audio_file_path"].endswith("/silence.wav")
