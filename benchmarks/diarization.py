"""Our diarizer against moonshine-voice's own pipeline, which runs the same networks: error, speed, memory.

    python benchmarks/diarization.py RECORDING.flac [RECORDING.flac ...] [--engines ours,moonshine] [--threads 2]

NAME.rttm beside each recording says who spoke when. Every engine runs in a process of its own, so that peak memory is
its own. DER is without collar, overlap scored; DER ±0.25 leaves out a quarter of a second around each boundary.
Needs `pyannote.metrics` to score.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyannote.core import Annotation

    from backend.engines.audio import Audio

Turn = tuple[float, float, str]
Engine = Callable[["Audio"], list[Turn]]

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("file", "engine", "audio_s", "speakers", "true_speakers", "der", "der25", "x_real_time", "x_cpu", "peak_mb")


@dataclass(frozen=True, slots=True)
class Row:
    """One engine on one recording. `x_cpu` is seconds of audio per second of processor time, over all cores."""

    file: str
    engine: str
    audio_s: float
    x_real_time: float
    x_cpu: float
    peak_mb: int
    speakers: int
    true_speakers: int | None = None
    der: float | None = None
    der25: float | None = None


def main() -> None:
    args = _arguments()
    if args.worker:
        print(json.dumps(_measure(args.recordings[0], args.engines, args.threads)))
        return
    rows = []
    for recording in args.recordings:
        for engine in args.engines.split(","):
            rows.append(_row(recording, engine, args.threads))
            print(_line(asdict(rows[-1]).values()) if len(rows) > 1 else _table(rows), flush=True)
    print("\n" + _table(rows))
    print(_totals(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def ours(threads: int) -> Engine:
    """The product's diarizer, loaded."""
    from backend.domain.transcript import SpeakerCount
    from backend.engines.community1 import Community1Diarizer

    diarizer = Community1Diarizer(threads=threads)

    def diarize(audio: Audio) -> list[Turn]:
        result = diarizer.diarize(audio, SpeakerCount(), lambda _: None)
        return [(turn.start_s, turn.end_s, turn.speaker) for turn in result.turns]

    return diarize


def moonshine(threads: int) -> Engine:  # noqa: ARG001  (it decides for itself)
    """The library's own pipeline, loaded; transcription is skipped."""
    from moonshine_voice.transcriber import ModelArch, Transcriber
    from moonshine_voice.utils import get_model_path

    options = {"identify_speakers": "true", "skip_transcription": "true", "return_audio_data": "false"}
    pipeline = Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY, options=options)

    def diarize(audio: Audio) -> list[Turn]:
        lines = pipeline.transcribe_without_streaming(audio.read().tolist(), 16_000).lines
        spans = [span for line in lines for span in line.speaker_spans or []]
        return [(s.start_time, s.start_time + s.duration, str(s.speaker_index)) for s in spans]

    return diarize


ENGINES: dict[str, Callable[[int], Engine]] = {"ours": ours, "moonshine": moonshine}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--engines", default="ours,moonshine")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(recording: Path, engine: str, threads: int) -> dict[str, object]:
    """Run one engine in this process; loading is not timed."""
    from backend.engines.audio import decode

    diarize = ENGINES[engine](threads)
    with decode(recording, max_s=1e6) as audio:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        turns = diarize(audio)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return {"turns": turns, "audio_s": audio.duration_s, "wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb}


def _row(recording: Path, engine: str, threads: int) -> Row:
    command = [sys.executable, __file__, str(recording), "--engines", engine, "--threads", str(threads), "--worker"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=_environment())
    found = json.loads(done.stdout)
    audio_s, turns = found["audio_s"], [(a, min(b, found["audio_s"]), c) for a, b, c in found["turns"]]
    speed = round(audio_s / found["wall_s"], 1), round(audio_s / found["cpu_s"], 1)
    row = Row(recording.stem, engine, round(audio_s, 1), *speed, found["peak_mb"], len({c for _, _, c in turns}))
    return _scored(row, recording.with_suffix(".rttm"), turns)


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}


def _scored(row: Row, rttm: Path, turns: Sequence[Turn]) -> Row:
    if not rttm.exists():
        return row
    from pyannote.core import Segment
    from pyannote.metrics.diarization import DiarizationErrorRate

    truth = _annotation(_read_rttm(rttm))
    heard, whole = _annotation(turns), Segment(0, row.audio_s)
    # pyannote.metrics takes the total width of the collar.
    der, der25 = (round(100 * DiarizationErrorRate(collar=c)(truth, heard, uem=whole), 2) for c in (0.0, 0.5))
    return Row(**asdict(row) | {"true_speakers": len(truth.labels()), "der": der, "der25": der25})


def _annotation(turns: Sequence[Turn]) -> Annotation:
    from pyannote.core import Annotation, Segment

    annotation = Annotation()
    for number, (start, end, speaker) in enumerate(turns):
        if end > start:
            annotation[Segment(start, end), number] = speaker
    return annotation


def _read_rttm(path: Path) -> list[Turn]:
    fields = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return [(float(f[3]), float(f[3]) + float(f[4]), f[7]) for f in fields]


def _table(rows: Sequence[Row]) -> str:
    return "\n".join([_line(COLUMNS)] + [_line(asdict(row)[name] for name in COLUMNS) for row in rows])


def _line(cells: object) -> str:
    return "".join(f"{'' if cell is None else cell!s:>14}  " for cell in cells)  # type: ignore[attr-defined]


def _totals(rows: Sequence[Row]) -> str:
    lines = []
    for engine in dict.fromkeys(row.engine for row in rows):
        own = [row for row in rows if row.engine == engine]
        scored = [row for row in own if row.der is not None]
        right = sum(row.speakers == row.true_speakers for row in scored)
        der = sum((row.der or 0) * row.audio_s for row in scored) / max(sum(row.audio_s for row in scored), 1e-9)
        lines.append(f"{engine}: mean DER {der:.2f} % by duration, speaker count right in {right} of {len(scored)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
