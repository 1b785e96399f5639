"""The commands of the README and of `docs`, unchanged, against a server that runs with the built-in engines."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT, SAMPLE
from tests.support.media import silence, write
from tests.support.processes import ServerProcess, environment, serving, wait_until_ready

SHOWN = SAMPLE.with_name("conversation.flac")
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS = "http://127.0.0.1:8000"

# Standing in for curl itself, so that the commands stay as they are and a refusal by the server is a failure of theirs.
CURL = 'curl() { command curl --fail-with-body --silent --show-error --max-time 200 "$@"; }'


def code_blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def all_blocks(language: str) -> list[str]:
    """Those of the README, then those of every document in `docs`."""
    return [block for path in DOCUMENTS for block in code_blocks(language, path.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "samples").symlink_to(SAMPLE.parent)
    with serving(folder) as running:
        wait_until_ready(running.url)
        yield running


def run(server: ServerProcess, *command: str) -> str:
    """What a command prints in the server's folder; its failure fails the test."""
    done = subprocess.run(
        command, cwd=server.folder, env=environment(server.folder), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, "\n".join([done.stderr, done.stdout, server.log.read_text()])
    return done.stdout


@pytest.mark.timeout(600)
def test_the_commands_do_what_the_documents_say(server: ServerProcess) -> None:
    """The curl commands, then the query, which prints what they left behind."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    blocks = all_blocks("bash")
    assert all(ADDRESS in block for block in blocks) and "".join(blocks).count("curl ") >= 20
    script = "\n".join(["set -euo pipefail", CURL, *blocks]).replace(ADDRESS, server.url)
    (query,) = [block for block in all_blocks("python") if "select(" in block]

    answer, _ = json.JSONDecoder().raw_decode(run(server, "bash", "-c", script))
    printed = run(server, sys.executable, "-c", query)

    assert answer["transcript"]["speaker_count"] == 3
    assert "restaurant" in answer["transcript"]["formatted_transcript"]
    assert (server.folder / "again.flac").read_bytes() == SHOWN.read_bytes()
    assert answer["transcript"]["formatted_transcript"] in printed
    assert answer["audio_file_path"] in printed


def shown_answer() -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(next(block for block in code_blocks("json") if "audio_file_path" in block))
    return shown


def test_the_answer_has_the_form_that_the_readme_shows(server: ServerProcess) -> None:
    shown = shown_answer()
    schemas = httpx.get(f"{server.url}/openapi.json").json()["components"]["schemas"]

    assert set(shown) <= set(schemas["ProcessResponse"]["properties"])
    assert set(shown["transcript"]) == set(schemas["TranscriptOut"]["properties"])
    assert all(set(segment) == set(schemas["SegmentOut"]["properties"]) for segment in shown["transcript"]["segments"])


def test_the_sample_gives_the_text_that_the_readme_shows(server: ServerProcess) -> None:
    """Nearly: another processor may hear a word or a comma differently."""
    with SHOWN.open("rb") as recording:
        answer = httpx.post(f"{server.url}/audio/process", files={"file": recording}, timeout=200).json()

    shown = shown_answer()["transcript"]
    for expected, found in zip(shown["segments"], answer["transcript"]["segments"], strict=False):
        assert found["speaker"] == expected["speaker"]
        assert SequenceMatcher(None, expected["text"], found["text"]).ratio() > 0.9
        for shown_word, word in zip(expected["words"], found["words"], strict=False):
            assert word["word"] == shown_word["word"]
            assert word["start"] == pytest.approx(shown_word["start"], abs=0.2)
    for speaker, expected in shown["speaker_stats"].items():
        found = answer["transcript"]["speaker_stats"][speaker]
        assert found["speaking_time_s"] == pytest.approx(expected["speaking_time_s"], abs=0.5)
        assert found["word_count"] == pytest.approx(expected["word_count"], abs=3)


def test_the_documents_show_storage_info_as_it_is(server: ServerProcess) -> None:
    guide = (ROOT / "STORAGE_GUIDE.md").read_text(encoding="utf-8")
    shown = re.search(r'^\{\n  "storage_type".*?^\}$', guide, re.DOTALL | re.MULTILINE)
    assert shown is not None

    assert set(json.loads(shown.group())) == set(httpx.get(f"{server.url}/audio/storage-info").json())


def test_the_documents_show_the_metadata_as_it_is(server: ServerProcess, tmp_path: Path) -> None:
    """Runs by itself too: half a second of silence has metadata like any other recording."""
    guide = (ROOT / "STORAGE_GUIDE.md").read_text(encoding="utf-8")
    shown = re.search(r'^\{\n  "manifest_version".*?^\}$', guide, re.DOTALL | re.MULTILINE)
    assert shown is not None
    recording = write(tmp_path / "silence.wav", silence(0.5)).read_bytes()

    answer = httpx.post(f"{server.url}/audio/process", files={"file": ("silence.wav", recording)}, timeout=60).json()
    folder = Path(answer["audio_file_path"]).parent

    stored = json.loads((folder / "silence_metadata.json").read_text(encoding="utf-8"))
    assert set(json.loads(shown.group())) == set(stored)
    assert answer["transcript"]["speaker_count"] == 0
