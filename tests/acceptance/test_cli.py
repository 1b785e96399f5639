"""The `aperta` command: the same pipeline, storage and rows without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SAMPLE
from tests.support.processes import environment


def aperta(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "backend.cli", *arguments),
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_process_prints_the_transcript_and_stores_everything(tmp_path: Path) -> None:
    done = aperta(tmp_path, "process", str(SAMPLE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Speaker 1: ") and "Speaker 2: " in done.stdout
    assert len([p for p in (tmp_path / "uploads").rglob("*") if p.is_file()]) == 3


def test_process_prints_the_answer_of_the_api_as_json(tmp_path: Path) -> None:
    done = aperta(tmp_path, "process", "--json", "--title", "Standup", str(SAMPLE), DIARIZATION_ENGINE="none")
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert Path(body["audio_file_path"]).read_bytes() == SAMPLE.read_bytes()
    assert body["transcript"]["speaker_count"] == 1


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    done = aperta(tmp_path, "process", "bad.wav", str(SAMPLE), DIARIZATION_ENGINE="none")
    assert done.returncode == 1
    assert "bad.wav: This is not an audio" in done.stderr and done.stdout.startswith("Speaker 1: ")
    assert "Traceback" not in done.stderr


def test_impossible_counts_are_a_sentence(tmp_path: Path) -> None:
    done = aperta(tmp_path, "process", "--min-speakers", "5", "--max-speakers", "2", str(SAMPLE))
    assert done.returncode != 0 and "greater than" in done.stderr and "Traceback" not in done.stderr


def test_a_language_that_is_no_code_is_a_sentence(tmp_path: Path) -> None:
    done = aperta(tmp_path, "process", "--language", "German", str(SAMPLE))
    assert done.returncode != 0 and "--language: give a code such as en, de or pt-BR" in done.stderr


def test_models_list_shows_what_is_here_and_how_to_get_the_rest(tmp_path: Path) -> None:
    done = aperta(tmp_path, "models", "list")
    assert done.returncode == 0
    assert "moonshine-tiny-en" in done.stdout and "aperta models pull small" in done.stdout


@pytest.mark.parametrize(("name", "says"), [("nonsense", "no model"), ("tiny", "hub")])
def test_pulling_what_cannot_be_had_is_a_sentence(tmp_path: Path, name: str, says: str) -> None:
    done = aperta(tmp_path, "models", "pull", name, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    assert done.returncode != 0 and says in done.stderr and "Traceback" not in done.stderr


def test_migrate_says_what_it_did(tmp_path: Path) -> None:
    assert "was migrated" in aperta(tmp_path, "migrate").stdout
    assert "up to date" in aperta(tmp_path, "migrate").stdout
