"""Aperta used in every way, on one machine: a program for tests that watch what leaves it.

Nothing is configured but where things are kept and which engine is taken. Each thing done is printed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urljoin

import httpx

from tests.conftest import SAMPLE
from tests.support.jobs import reach, send
from tests.support.processes import ServerProcess, environment, serving, wait_until_ready, working
from tests.support.random_models import build_whisper

MAIN = (sys.executable, "-m", "backend.main")
UNSET = {"HF_HUB_OFFLINE": "", "AWS_EC2_METADATA_DISABLED": ""}
"""What other tests forbid, and users do not."""
SILENT_S = 30
"""How long processes stay after their models have worked: onnxruntime's uploader first sends after 13 s."""


def run(folder: Path) -> None:
    """Commands; then a server with each engine, and a server with a worker; all of them are left alone for a while."""
    for arguments in (["--version"], ["migrate"], ["models", "list"], ["process", str(SAMPLE)]):
        _command(folder / "commands", *arguments)
    whisper = {"ASR_ENGINE": "faster-whisper", "ASR_MODEL": str(build_whisper(folder / "whisper"))}
    with ExitStack() as stack:
        builtin = stack.enter_context(serving(_made(folder / "builtin"), **_settings(folder / "builtin")))
        _use(builtin, "aperta serve")
        other = stack.enter_context(serving(_made(folder / "other"), MAIN, **_settings(folder / "other"), **whisper))
        _use(other, "python -m backend.main")
        shared = _settings(folder / "shared")
        server = stack.enter_context(serving(_made(folder / "shared"), **shared, WORKERS="none"))
        stack.enter_context(working(folder / "worker", **shared))
        job = send(server, SAMPLE)
        assert job is not None
        reach(server, job["id"], "completed", 300)
        _say("aperta worker: a recording that a server without workers accepted")
        time.sleep(SILENT_S)
    _say(f"all of them, left alone for {SILENT_S} s, and ended")


def _settings(folder: Path) -> dict[str, str]:
    """As `environment` says, but for what it forbids; a worker in another folder shares what these name."""
    kept = environment(folder)
    return {name: kept[name] for name in ("DATABASE_URL", "UPLOAD_DIR")} | {
        **UNSET,
        "HF_HOME": str(Path.home() / ".cache" / "huggingface"),
    }


def _say(done: str) -> None:
    print(done, flush=True)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _command(folder: Path, *arguments: str) -> None:
    folder.mkdir(exist_ok=True)
    command = (sys.executable, "-m", "backend.cli", *arguments)
    subprocess.run(
        command, cwd=folder, env=environment(folder, **_settings(folder)), stdout=subprocess.DEVNULL, check=True
    )
    _say(" ".join(("aperta", *arguments)))


def _use(server: ServerProcess, name: str) -> None:
    """Everything a visitor opens, and a recording from the upload to its transcript."""
    wait_until_ready(server.url, 120)
    for page in ("/", "/docs"):
        text = _opened(server, page)
        for asset in re.findall(r"""(?:src|href)=["']([^"'#]+)["']""", text):
            _opened(server, urljoin(page, asset))
    for page in ("/openapi.json", "/health", "/metrics", "/audio/storage-info", "/conversations", "/jobs"):
        _opened(server, page)
    with SAMPLE.open("rb") as file:
        answer = httpx.post(f"{server.url}/audio/process", files={"file": (SAMPLE.name, file)}, timeout=300)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    for view in ("", "/transcript", "/audio"):
        _opened(server, f"/conversations/{found['conversation_id']}{view}")
    _say(f"{name}: pages, and a recording with {found['engines']}")


def _opened(server: ServerProcess, page: str) -> str:
    answer = httpx.get(urljoin(server.url, page), timeout=60)
    assert answer.status_code == 200, f"{page}: {answer.status_code}"
    return answer.text


if __name__ == "__main__":
    run(Path(sys.argv[1]))
