"""Servers that are killed at every point of their work, and what the next one on the same folder makes of it."""

from __future__ import annotations

import signal
import socket
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.doomed import calls_in
from tests.support.jobs import (
    LEFTOVERS_GONE_S,
    SECONDS,
    assert_there_once,
    get,
    job_of,
    reach,
    send,
    speech,
    spool_files,
    stored_suffixes,
    wait_for,
)
from tests.support.processes import ServerProcess, serving


def doomed(point: str, how: str = "KILL") -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.support.doomed", point, how, "serve")


HEALTHY = doomed("never")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speech(tmp_path_factory.mktemp("recording") / "speech.wav", 5.0)


def die_with(server: ServerProcess, status: int = -signal.SIGKILL) -> None:
    assert server.process.wait(SECONDS) == status, server.log.read_text()


@pytest.mark.parametrize(
    ("point", "diarized", "transcribed", "attempts"),
    [
        ("accepted", 1, 1, 1),
        ("decoded", 1, 1, 2),
        ("diarized", 2, 1, 2),
        ("transcribed", 1, 2, 2),
        ("saved", 1, 1, 2),
        ("stored", 1, 1, 2),
        ("committed", 1, 1, 1),
    ],
)
def test_a_recording_survives_a_kill_and_no_engine_repeats_what_was_noted(
    tmp_path: Path, recording: Path, point: str, diarized: int, transcribed: int, attempts: int
) -> None:
    with serving(tmp_path, doomed(point)) as server:
        job = send(server, recording)
        assert (job is None) == (point == "accepted"), "only what was accepted is answered"
        die_with(server)
    with serving(tmp_path, HEALTHY) as server:
        listed = get(server, "/jobs")["jobs"]
        assert isinstance(listed, list)
        done = reach(server, listed[0]["id"], "completed")
        assert done["attempts"] == attempts
        assert_there_once(server)
    assert Counter(calls_in(tmp_path)) == {"diarize": diarized, "transcribe": transcribed}


def test_a_recording_whose_server_dies_before_it_is_written_down_is_gone_with_it(
    tmp_path: Path, recording: Path
) -> None:
    with serving(tmp_path, doomed("kept")) as server:
        assert send(server, recording) is None
        die_with(server)
    assert len(spool_files(tmp_path)) == 1
    with serving(tmp_path, HEALTHY) as server:
        wait_for(lambda: not spool_files(tmp_path), "an empty spool", LEFTOVERS_GONE_S)
        assert get(server, "/jobs")["total"] == 0 and stored_suffixes(tmp_path) == []


def test_half_an_upload_is_gone_after_a_kill(tmp_path: Path) -> None:
    with serving(tmp_path, HEALTHY) as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), SECONDS) as connection:
            connection.sendall(
                b"POST /audio/process HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
                b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(3_000_000)
            )
            wait_for(lambda: spool_files(tmp_path), "a file in the spool")
            server.process.kill()
            die_with(server)
    with serving(tmp_path, HEALTHY) as server:
        wait_for(lambda: not spool_files(tmp_path), "an empty spool", LEFTOVERS_GONE_S)
        assert get(server, "/jobs")["total"] == 0


def test_a_server_that_is_told_to_stop_hands_its_job_to_the_next_one(tmp_path: Path, recording: Path) -> None:
    with serving(tmp_path, doomed("transcribing", "TERM")) as server:
        job = send(server, recording)
        assert job is not None
        die_with(server, 0)
        assert "handed back" in server.log.read_text()
    with serving(tmp_path, HEALTHY) as server:
        assert reach(server, job["id"], "completed")["attempts"] == 2
        assert_there_once(server)
    assert Counter(calls_in(tmp_path)) == {"diarize": 1, "transcribe": 2}


def test_a_recording_that_kills_whoever_processes_it_is_given_up_and_the_others_go_on(
    tmp_path: Path, recording: Path
) -> None:
    """Both run at once, so the first death is on both of their records."""
    deaths = 0
    settings = {"JOBS_AT_ONCE": "2"}
    command = doomed("poison:bad.wav")
    with serving(tmp_path, command, **settings) as server:
        good, bad = send(server, recording), send(server, recording, "bad.wav")
        assert good and bad
        die_with(server)
        deaths += 1
    while deaths < 4:
        with suppress(AssertionError, httpx.TransportError), serving(tmp_path, command, **settings) as server:
            wait_for(lambda: job_of(server, bad["id"])["status"] == "failed", "giving up")
            break
        deaths += 1
    assert deaths == 3
    with serving(tmp_path, command, **settings) as server:
        assert reach(server, good["id"], "completed")["status"] == "completed"
        failed = job_of(server, bad["id"])
        assert failed["attempts"] == 3 and isinstance(failed["error"], dict)
        assert "died 3 times" in failed["error"]["detail"]
        conversation = get(server, f"/conversations/{bad['conversation_id']}")
        assert conversation["status"] == "failed" and conversation["error"] == failed["error"]["detail"]
        assert spool_files(tmp_path) == [bad["id"]], "kept, to be tried again by hand"
