"""Stopping the server: what is under way is finished, and the process says that all is well."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import httpx

from tests.conftest import SAMPLE
from tests.support.processes import serving, wait_until_ready


def test_an_idle_server_stops_at_once_and_cleanly(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        wait_until_ready(running.url)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0


def test_a_recording_under_way_is_finished_before_the_server_stops(tmp_path: Path) -> None:
    answers: list[httpx.Response] = []

    def send(url: str) -> None:
        with SAMPLE.open("rb") as file:
            answers.append(httpx.post(f"{url}/audio/process", files={"file": file}, timeout=60))

    with serving(tmp_path) as running:
        wait_until_ready(running.url)
        sender = threading.Thread(target=send, args=(running.url,))
        sender.start()
        while not httpx.get(f"{running.url}/conversations?status=processing").json()["total"]:
            time.sleep(0.02)
        running.process.send_signal(signal.SIGTERM)
        sender.join()
        assert answers[0].status_code == 200
        assert running.process.wait(20) == 0
        assert [path for path in (tmp_path / "uploads" / ".spool").rglob("*") if path.is_file()] == []
