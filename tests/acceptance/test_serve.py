"""The server as a newcomer meets it: real processes, the built-in engines, HTTP alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import ROOT, SAMPLE
from tests.support.processes import SERVE, ServerProcess, environment, serving, wait_until_ready

CHUNK = bytes(1024 * 1024)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        wait_until_ready(running.url)
        yield running


def process(server: ServerProcess, recording: Path = SAMPLE) -> httpx.Response:
    with recording.open("rb") as file:
        return httpx.post(f"{server.url}/audio/process", files={"file": (recording.name, file)}, timeout=300)


def test_the_sample_comes_back_with_its_speakers_and_words(server: ServerProcess) -> None:
    answer = process(server)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    reference = (SAMPLE.with_suffix(".stm")).read_text().splitlines()
    assert body["transcript"]["speaker_count"] == len({line.split()[2] for line in reference})
    heard = set(body["transcript"]["formatted_transcript"].lower().split())
    said = set(" ".join(line.split(None, 5)[5] for line in reference).lower().split())
    assert len(said & heard) > 0.6 * len(said)
    assert Path(body["audio_file_path"]).read_bytes() == SAMPLE.read_bytes()
    assert "moonshine" in body["engines"]["transcription"] and "community-1" in body["engines"]["diarization"]


def test_the_log_tells_address_engines_and_storage(server: ServerProcess) -> None:
    log = server.log.read_text()
    assert server.url in log and "moonshine" in log and "community-1" in log and "storage: local" in log
    assert "confinement of decoders (auto): " in log


def test_health_answers_while_a_recording_is_transcribed(server: ServerProcess) -> None:
    answers: list[httpx.Response] = []
    worker = threading.Thread(target=lambda: answers.append(process(server)))
    worker.start()
    waited = []
    while worker.is_alive():
        began = time.perf_counter()
        assert httpx.get(f"{server.url}/health/live").status_code == 204
        waited.append(time.perf_counter() - began)
        time.sleep(0.02)
    assert answers[0].status_code == 200
    assert len(waited) > 10 and sorted(waited)[len(waited) // 2] < 0.5


def test_memory_does_not_grow_with_the_upload(tmp_path: Path) -> None:
    with serving(tmp_path, DIARIZATION_ENGINE="none") as running:
        wait_until_ready(running.url)
        before = psutil.Process(running.process.pid).memory_info().rss
        peak = [before]
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                peak.append(psutil.Process(running.process.pid).memory_info().rss)
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()

        def body() -> Iterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.wav"\r\n\r\n'
            for _ in range(400):
                yield CHUNK
            yield b"\r\n--b--\r\n"

        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = httpx.post(f"{running.url}/audio/process", content=body(), headers=headers, timeout=120)
        done.set()
        watcher.join()
        assert answer.status_code == 415
        assert max(peak) - before < 60 * 1024 * 1024
        assert not [p for p in (tmp_path / "uploads").rglob("*") if p.is_file()]


def test_a_client_that_hangs_up_leaves_nothing(server: ServerProcess) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        yield CHUNK
        raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError):
        httpx.post(
            f"{server.url}/audio/process",
            content=body(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
    spool = server.folder / "uploads" / ".spool"
    for _ in range(100):
        left = [path for path in spool.rglob("*") if path.is_file()]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"left behind: {left}")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ASR_ENGINE": "faster-whisper", "ASR_MODEL": "small"}, "aperta models pull small"),
        ({"ASR_ENGINE": "faster-whisper", "ASR_MODEL": "/nowhere/model"}, "/nowhere/model"),
        ({"ASR_ENGINE": "kaldi"}, "ASR_ENGINE"),
        ({"DIARIZATION_ENGINE": "pyannote"}, "pyannote"),
        ({"PORT": "80000"}, "PORT"),
        ({"UPLOAD_DIR": "/proc/uploads"}, "UPLOAD_DIR"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "DATABASE_URL"),
        ({"DATABASE_URL": "mysql://localhost/rows"}, "DATABASE_URL: mysql is not supported"),
        ({"MAX_AUDIO_SECONDS": "inf"}, "MAX_AUDIO_SECONDS"),
    ],
)
def test_what_cannot_work_stops_the_start_with_one_sentence(
    tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    ended = subprocess.run(
        SERVE, cwd=tmp_path, env=environment(tmp_path, **settings), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode != 0
    assert says in ended.stderr and "Traceback" not in ended.stderr


def test_a_file_that_is_no_database_stops_the_start_and_stays_as_it_was(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("Something else, more than the header of a database is long. " * 10)
    notes.chmod(0o644)
    given = environment(tmp_path, DATABASE_URL=f"sqlite:///{notes}")
    ended = subprocess.run(SERVE, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0 and "file is not a database" in ended.stderr
    assert notes.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("command", [SERVE, (sys.executable, "-c", "from backend.main import run; run()")])
def test_an_env_file_that_is_no_text_is_a_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / ".env").write_bytes(b"LOG_LEVEL=\xff\xfe")
    ended = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0 and ".env is not UTF-8" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_does_not_exist_is_refused(tmp_path: Path, port: str) -> None:
    ended = subprocess.run(
        (*SERVE, f"--port={port}"),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2 and "--port" in ended.stderr and "Traceback" not in ended.stderr


def test_options_are_named_as_they_were_given(tmp_path: Path) -> None:
    ended = subprocess.run(
        (*SERVE[:-1], "process", "--num-speakers=9", "--max-speakers=3", str(SAMPLE)),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "--num-speakers (9) is outside" in ended.stderr and "num_speakers" not in ended.stderr.lower()


def test_a_file_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    unreadable = Path("/proc/self/mem")  # reading it from its start is an input/output error, for root too
    ended = subprocess.run(
        (*SERVE[:-1], "process", str(unreadable), str(SAMPLE)),
        cwd=tmp_path,
        env=environment(tmp_path, DIARIZATION_ENGINE="none"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 1 and ended.stdout.startswith("Speaker 1: ")
    assert f"{unreadable}: Input/output error" in ended.stderr and "Traceback" not in ended.stderr


def test_a_taken_port_is_named(tmp_path: Path, server: ServerProcess) -> None:
    port = server.url.rsplit(":", 1)[1]
    ended = subprocess.run(
        SERVE, cwd=tmp_path, env=environment(tmp_path, PORT=port), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode != 0 and port in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(("cwd", "script"), [(ROOT, "backend/main.py"), (ROOT / "backend", "main.py")])
def test_main_py_serves_from_either_folder(tmp_path: Path, cwd: Path, script: str) -> None:
    with serving(tmp_path, (sys.executable, script), cwd=cwd) as running:
        assert httpx.get(f"{running.url}/audio/storage-info").json()["storage_type"] == "local"


def test_an_unknown_language_for_the_built_in_engine_leaves_nothing(server: ServerProcess) -> None:
    before = httpx.get(f"{server.url}/conversations").json()["total"]
    with SAMPLE.open("rb") as file:
        answer = httpx.post(f"{server.url}/audio/process", files={"file": file}, data={"language": "de"}, timeout=300)
    assert answer.status_code == 422 and "aperta models pull" in answer.json()["detail"]
    assert httpx.get(f"{server.url}/conversations").json()["total"] == before
