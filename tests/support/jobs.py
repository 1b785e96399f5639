"""Jobs of server processes, as their clients see them, and what they leave on the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import av
import httpx
import numpy as np

from tests.conftest import SAMPLE
from tests.support.media import write
from tests.support.processes import ServerProcess

SECONDS = 120
LEFTOVERS_GONE_S = 40
"""What a killed process left in the spool is looked for every few seconds, and deleted when it is some seconds old."""


def speech(path: Path, seconds: float) -> Path:
    """The beginning of the sample, as often as it takes."""
    with av.open(str(SAMPLE)) as file:
        samples = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)[:1]
        rate_hz = file.streams.audio[0].rate
    samples = np.tile(samples, int(seconds * rate_hz / samples.shape[1]) + 1)[:, : round(seconds * rate_hz)]
    if samples.dtype != np.float32:
        samples = (samples / np.iinfo(samples.dtype).max).astype(np.float32)
    return write(path, samples, rate_hz=rate_hz)


def send(server: ServerProcess, recording: Path, filename: str = "speech.wav") -> dict[str, object] | None:
    """The job of an accepted recording; None if the server died before it answered."""
    files = {"file": (filename, recording.read_bytes(), "audio/wav")}
    try:
        answer = httpx.post(f"{server.url}/audio/process?async=true", files=files, timeout=SECONDS)
    except httpx.TransportError:
        return None
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def get(server: ServerProcess, path: str) -> dict[str, object]:
    answer = httpx.get(f"{server.url}{path}", timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def job_of(server: ServerProcess, job_id: object) -> dict[str, object]:
    return get(server, f"/jobs/{job_id}")


def wait_for(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


def reach(server: ServerProcess, job_id: object, status: str, seconds: float = SECONDS) -> dict[str, object]:
    """The job when it is in a state; it must not end in another one."""
    job: dict[str, object] = {}

    def reached() -> bool:
        job.update(job_of(server, job_id))
        assert job["status"] in (status, "queued", "running"), job
        return job["status"] == status

    wait_for(reached, f"{job_id} {status}", seconds)
    return job


def spool_files(folder: Path) -> list[str]:
    """What waits or was left in the spool."""
    found = (folder / "uploads" / ".spool").rglob("*")
    return sorted(path.name for path in found if path.is_file())


def stored_suffixes(folder: Path) -> list[str]:
    """Every stored file's kind."""
    found = (folder / "uploads").rglob("*")
    return sorted(path.suffix for path in found if path.is_file() and ".spool" not in path.parts)


def assert_there_once(server: ServerProcess, count: int = 1) -> None:
    """So many conversations, each completed, with its three objects and none besides; nothing left in the spool."""
    page = get(server, f"/conversations?limit={max(1, count)}")
    assert page["total"] == count and get(server, "/jobs")["total"] == count
    locators = []
    assert isinstance(page["conversations"], list)
    for item in page["conversations"]:
        detail = get(server, f"/conversations/{item['id']}")
        assert isinstance(detail["objects"], list) and isinstance(detail["transcript"], dict)
        assert detail["status"] == "completed" and detail["transcript"]["segments"]
        assert sorted(found["kind"] for found in detail["objects"]) == ["audio", "metadata", "transcript"]
        locators += [found["locator"] for found in detail["objects"]]
    assert len(set(locators)) == 3 * count and all(Path(locator).is_file() for locator in locators)
    assert stored_suffixes(server.folder) == [".json"] * count + [".txt"] * count + [".wav"] * count
    wait_for(lambda: not spool_files(server.folder), "an empty spool", LEFTOVERS_GONE_S)
