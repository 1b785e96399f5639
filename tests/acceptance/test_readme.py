"""The README's commands, as they stand there, against a server that runs with the defaults."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8000"
START_LIMIT_S = 120

# Standing in for curl itself, so that the commands stay as they are and a refusal by the server is a failure of theirs.
CURL = 'curl() { command curl --fail-with-body --silent --show-error --max-time 200 "$@"; }'


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def shell_blocks() -> list[str]:
    """The blocks to paste into a shell: they talk to the server of `make run`."""
    return [block for block in code_blocks("bash") if ADDRESS in block]


@dataclass(frozen=True)
class Server:
    port: int
    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "samples").symlink_to(PROJECT / "samples")
    port = _free_port()
    environment = _environment(folder) | {"PORT": str(port)}
    command = [sys.executable, "-m", "backend.cli", "serve"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        _wait_until_ready(port, process, folder / "log")
        yield Server(port, folder, environment)
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.timeout(600)
def test_every_curl_command_succeeds(server: Server) -> None:
    blocks = shell_blocks()
    script = "\n".join(["set -euo pipefail", CURL, *blocks]).replace(ADDRESS, f"127.0.0.1:{server.port}")

    done = subprocess.run(
        ["bash", "-c", script], cwd=server.folder, env=server.environment, capture_output=True, text=True, timeout=590
    )

    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}\n{(server.folder / 'log').read_text()}"
    answer, _ = json.JSONDecoder().raw_decode(done.stdout)
    assert answer["transcript"]["speaker_count"] == 3
    assert "library" in answer["transcript"]["formatted_transcript"]
    assert (server.folder / "meeting-again.flac").read_bytes() == (PROJECT / "samples/meeting.flac").read_bytes()


def test_the_answer_has_the_form_that_the_readme_shows(server: Server) -> None:
    shown = json.loads(next(block for block in code_blocks("json") if "audio_file_path" in block))
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/openapi.json")
    with urllib.request.urlopen(request, timeout=30) as reply:
        schemas = json.load(reply)["components"]["schemas"]

    assert set(shown) <= set(schemas["ProcessResponse"]["properties"])
    assert set(shown["transcript"]) == set(schemas["TranscriptOut"]["properties"])
    assert all(set(segment) == set(schemas["SegmentOut"]["properties"]) for segment in shown["transcript"]["segments"])


@pytest.mark.timeout(120)
def test_the_query_prints_the_transcripts(server: Server) -> None:
    (script,) = code_blocks("python")
    command = [sys.executable, "-c", script]

    done = subprocess.run(
        command, cwd=server.folder, env=server.environment, capture_output=True, text=True, timeout=100
    )

    assert done.returncode == 0, done.stderr
    if shutil.which("curl"):
        assert "Speaker 1: " in done.stdout


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the developer's own settings, models or credentials."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(PROJECT),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "*",
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"The server did not become ready:\n{log.read_text()}")
