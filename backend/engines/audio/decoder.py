"""The program that reads recordings: `python -m backend.engines.audio.decoder ORDER`, one short-lived process for each.

ORDER is JSON, as `process.run_decoder` writes it: `path`, the recording (none: only report how firmly this process is
confined); `files`, the numbers of inherited open files for samples (none: only probe), as many as there may be tracks;
`separate`, whether the channels of the only audio stream are tracks, else every stream is one; `stream`, the only one
to listen to; and what limits it. On stdout come lines of JSON: `{"progress": 0.5}`, and at the end `{"result": …}` or
`{"error": class, "detail": sentence}`. No numpy here: it would double the time to start.
"""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import pkgutil
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av

from backend.engines.audio.confinement import Confinement, Limits, confine
from backend.engines.audio.decoding.containers import open_container
from backend.engines.audio.decoding.recording import OpenRecording
from backend.engines.audio.decoding.recordings import check_beginning, decode
from backend.engines.audio.decoding.tracks import BYTES_OF, too_many_bytes
from backend.engines.audio.decoding.watch import say
from backend.engines.audio.memory import MAX_DECODER_BYTES, MIB
from backend.errors import AppError, InvalidAudio, StorageFull

MIN_FILE_BYTES = MIB
"""What may be written to a file even when there are no samples: the account of a mistake."""


def main(order: dict[str, Any]) -> dict[str, object]:
    """Carry out an order; see the module. Imports first, then open files, then the lock, then the recording's bytes.

    Raises:
        EmptyAudio, InvalidAudio, UnsupportedMedia, TooLarge, StorageFull, EngineUnavailable
    """
    _import_all_of_av()
    with ExitStack() as opened:
        path = order["path"]
        recording = opened.enter_context(closing(OpenRecording(Path(path)))) if path is not None else None
        files = [opened.enter_context(os.fdopen(number, "wb")) for number in order["files"]]
        measures = confine(_limits(order), Confinement(order.get("confinement", Confinement.AUTO)))
        if recording is None:
            return {"measures": asdict(measures)}
        if not files:
            return {"info": asdict(check_beginning(recording, order.get("stream"), open_container))}
        return decode(recording, files, order, open_container)


def _limits(order: dict[str, Any]) -> Limits:
    """For a decoding the limit on computing is only met where one call into FFmpeg never returns; else `Watch` says it
    better. What this program has computed so far, while it started, is its own."""
    slack_s = 2.0 if order["files"] else time.process_time()
    longest_bytes = order.get("max_samples", 0) * max(BYTES_OF.values())
    return Limits(
        max_cpu_s=math.ceil(order["max_cpu_s"] + slack_s),
        max_memory_bytes=order.get("max_memory_bytes", MAX_DECODER_BYTES),
        max_file_bytes=min(longest_bytes, order.get("max_decoded_bytes", 0)) + MIN_FILE_BYTES,
    )


def _import_all_of_av() -> None:
    """PyAV would import its modules when it needs them, which the lock forbids."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith(("__main__", ".datasets")):
            importlib.import_module(module.name)


def _run() -> None:
    order = json.loads(sys.argv[1])
    try:
        say({"result": main(order)})
    except AppError as error:
        say({"error": type(error).__name__, "detail": str(error)})
    except MemoryError:
        most_mb = order.get("max_memory_bytes", MAX_DECODER_BYTES) // MIB
        detail = f"The recording cannot be read: it asks for more than {most_mb} MB of memory."
        say({"error": InvalidAudio.__name__, "detail": f"{detail} Export it again, or convert it to FLAC."})
    except OSError as error:
        if (refusal := _find_refusal(error, order)) is None:
            raise
        say({"error": type(refusal).__name__, "detail": str(refusal)})


def _find_refusal(error: OSError, order: dict[str, Any]) -> AppError | None:
    """What it means for the recording that a file of samples could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("No space left for the decoded samples. Free space or move UPLOAD_DIR.")
    return too_many_bytes(order["max_decoded_bytes"]) if error.errno == errno.EFBIG else None


if __name__ == "__main__":
    _run()
