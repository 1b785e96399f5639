"""Aperta as it is, but for one thing: at a certain point of its work its process gets a signal, as `kill -9` sends one.

    python -m tests.doomed transcribed KILL serve      dies when the engine has transcribed, before that is noted
    python -m tests.doomed poison:bad.wav KILL serve   dies whenever it begins to process a recording of that name
    python -m tests.doomed within:store:0.2 KILL serve dies at a random moment of the first 0.2 s of a stage
    python -m tests.doomed never KILL worker           lives

Every run of an engine is a line in the file CALLS in the working directory.
"""

from __future__ import annotations

import inspect
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = "engine-calls"
HEEDED_WITHIN_S = 2.0


def calls_in(folder: Path) -> list[str]:
    """The engines that ran in a folder's processes, in order."""
    file = folder / CALLS
    return file.read_text().split() if file.exists() else []


def _around(owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
    real = getattr(owner, name)

    if inspect.iscoroutinefunction(real):

        async def call(*arguments: Any, **more: Any) -> Any:
            before(*arguments)
            result = await real(*arguments, **more)
            after(*arguments)
            return result

    else:

        def call(*arguments: Any, **more: Any) -> Any:
            before(*arguments)
            result = real(*arguments, **more)
            after(*arguments)
            return result

    setattr(owner, name, call)


def _nothing(*_arguments: object) -> None:
    return


def doom(point: str, signal_number: int) -> None:
    """Make this process die at a point."""
    from backend.engines.community1.diarizer import Community1Diarizer
    from backend.engines.moonshine.transcriber import MoonshineTranscriber
    from backend.services.jobs.intake import Intake
    from backend.services.jobs.queue import JobQueue
    from backend.services.processing.objects import ResultObjects
    from backend.services.processing.rows import ResultRows
    from backend.services.processing.service import ProcessingService
    from backend.services.speech.pipeline import SpeechPipeline
    from backend.services.storage import StorageService
    from backend.services.storage.spool.accepted import AcceptedRecordings
    from backend.services.storage.spool.temporary import Spool

    def die(*_arguments: object) -> None:
        os.kill(os.getpid(), signal_number)
        if signal_number == signal.SIGTERM:
            time.sleep(HEEDED_WITHIN_S)  # a process that is asked to stop is to know it before its work goes on

    def note(what: str) -> Callable[..., None]:
        def write(*_arguments: object) -> None:
            with Path(CALLS).open("a") as file:
                file.write(f"{what}\n")

        return write

    _around(Community1Diarizer, "diarize", note("diarize"), _nothing)
    _around(MoonshineTranscriber, "transcribe", note("transcribe"), _nothing)
    name, _, detail = point.partition(":")
    if name == "poison":

        def die_of_it(_service: object, job: Any, *_arguments: object) -> None:
            if job.filename == detail:
                die()

        _around(ProcessingService, "process", die_of_it, _nothing)
        return
    if name == "within":
        stage, _, most_s = detail.partition(":")
        stages: dict[str, tuple[Any, str]] = {
            "upload": (Spool, "_write"),
            "accept": (Intake, "_submit"),
            "decode": (SpeechPipeline, "_decode"),
            "diarize": (Community1Diarizer, "diarize"),
            "transcribe": (MoonshineTranscriber, "transcribe"),
            "store": (ResultObjects, "save"),
            "commit": (ResultRows, "commit"),
        }

        def die_soon(*_arguments: object) -> None:
            threading.Timer(random.uniform(0, float(most_s)), die).start()

        _around(*stages[stage], die_soon, _nothing)
        return
    points: dict[str, tuple[Any, str, Callable[..., None], Callable[..., None]]] = {
        "kept": (AcceptedRecordings, "add", _nothing, die),
        "accepted": (JobQueue, "add", die, _nothing),
        "queued": (JobQueue, "add", _nothing, die),
        "decoded": (SpeechPipeline, "_decode", _nothing, die),
        "diarizing": (Community1Diarizer, "diarize", die, _nothing),
        "diarized": (Community1Diarizer, "diarize", _nothing, die),
        "transcribing": (MoonshineTranscriber, "transcribe", die, _nothing),
        "transcribed": (MoonshineTranscriber, "transcribe", _nothing, die),
        "saved": (StorageService, "save_transcript", _nothing, die),
        "stored": (ResultRows, "commit", die, _nothing),
        "committed": (ResultRows, "commit", _nothing, die),
    }
    if name != "never":
        _around(*points[name])


if __name__ == "__main__":
    doom(sys.argv[1], getattr(signal, f"SIG{sys.argv[2]}"))
    from backend.cli import app

    app(sys.argv[3:])
