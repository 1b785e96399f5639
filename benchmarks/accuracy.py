"""How often the speech pipeline is wrong over many recordings: DER, WER, cpWER, number of speakers.

    python -m benchmarks.accuracy RECORDING|FOLDER ... [--reference] [--cache FILE] [--json FILE]

NAME.rttm and NAME.stm beside a recording say who spoke when and who said what; of a folder those recordings are taken
that have one of them. `--reference` also runs moonshine-voice's own pipeline, which is slow: with `--cache` what was
done is kept, and a run that was stopped goes on where it was. Our own results are kept only until our code changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.pipelines import PIPELINES, ROOT, Run, run
from benchmarks.report import describe, machine, table
from benchmarks.scoring import Score, find_recordings, find_truth, missing_packages, score, total

RATES = {
    "der": "DER %",
    "der25": "± 0.25 s",
    "segment_der": "DER % (segments)",
    "segment_der25": "± 0.25 s",
    "wer": "WER %",
    "dropped": "dropped %",
    "cpwer": "cpWER %",
}
HEAD = ("recording", "pipeline", "seconds", "speakers", *RATES.values())
OUR_CODE = ("domain/**/*.py", "engines/**/*.py", "services/speech/**/*.py")


@dataclass(frozen=True, slots=True)
class Row:
    """One pipeline on one recording."""

    recording: Path
    true_speakers: int
    run: Run
    score: Score


class Cache:
    """Runs that were done, in a JSON file or, without one, nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._runs: dict[str, dict[str, object]] = json.loads(path.read_text()) if path and path.exists() else {}
        self._codes = {pipeline: _code(pipeline) for pipeline in PIPELINES}

    def run(self, pipeline: str, recording: Path, threads: int) -> Run:
        """What was kept of this pipeline, by its code, and this recording, by its content; else a new run."""
        key = f"{pipeline} {self._codes[pipeline]} {hashlib.sha256(recording.read_bytes()).hexdigest()[:16]}"
        if key not in self._runs:
            self._runs[key] = asdict(run(pipeline, recording, threads))
            self._save()
        return Run(**self._runs[key])  # type: ignore[arg-type]

    def _save(self) -> None:
        if self._path:
            new = self._path.with_name(self._path.name + ".new")
            new.write_text(json.dumps(self._runs))
            new.replace(self._path)


def main() -> None:
    args = _arguments()
    if lacking := missing_packages():
        raise SystemExit(lacking)
    where, rows = machine(), []
    for row in _measure(args):
        rows.append(row)
        print(table(HEAD, [_cells(row)], left=2).splitlines()[-1], file=sys.stderr, flush=True)
    totals = list(_totals(rows))
    print(describe(where), table(HEAD, map(_cells, rows), left=2), table(HEAD, totals, left=2), sep="\n\n")
    if args.json:
        report = {"machine": where, "rows": [_as_json(row) for row in rows], "totals": _totals_as_json(rows)}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def _measure(args: argparse.Namespace) -> Iterator[Row]:
    cache = Cache(args.cache)
    pipelines = [*args.pipelines, *(["moonshine"] if args.reference else [])]
    for recording in find_recordings(args.recordings):
        truth = find_truth(recording)
        for pipeline in dict.fromkeys(pipelines):
            done = cache.run(pipeline, recording, args.threads)
            yield Row(recording, truth.speakers, done, score(truth, done))


def _code(pipeline: str) -> str:
    """Changes when the pipeline's results may change."""
    if pipeline.startswith("moonshine"):
        return version("moonshine-voice")
    paths = sorted(path for pattern in OUR_CODE for path in (ROOT / "backend").glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:8]


def _cells(row: Row) -> list[object]:
    speakers = f"{row.run.speakers} of {row.true_speakers or '?'}"
    rates = [row.score.show(name) for name in RATES]
    return [
        f"{row.recording.parent.name}/{row.recording.stem}",
        row.run.pipeline,
        f"{row.run.audio_s:.0f}",
        speakers,
        *rates,
    ]


def _totals(rows: Sequence[Row]) -> Iterator[list[object]]:
    """A line per folder and pipeline. Errors are summed and then divided, so long recordings count more."""
    for folder, pipeline, own in _groups(rows):
        summed = total(row.score for row in own)
        right = f"right in {summed.counts_right} of {summed.counted}"
        seconds = f"{sum(row.run.audio_s for row in own):.0f}"
        name = f"{folder.name} ({len(own)})"
        yield [name, pipeline, seconds, right, *(summed.show(rate) for rate in RATES)]


def _groups(rows: Sequence[Row]) -> Iterator[tuple[Path, str, list[Row]]]:
    for folder, pipeline in dict.fromkeys((row.recording.parent, row.run.pipeline) for row in rows):
        yield folder, pipeline, [r for r in rows if (r.recording.parent, r.run.pipeline) == (folder, pipeline)]


def _as_json(row: Row) -> dict[str, object]:
    return {
        "recording": f"{row.recording.parent.name}/{row.recording.stem}",
        "pipeline": row.run.pipeline,
        "audio_s": row.run.audio_s,
        "speakers": row.run.speakers,
        "true_speakers": row.true_speakers,
        "errors_percent": row.score.as_json(),
    }


def _totals_as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [
        {"folder": folder.name, "pipeline": pipeline, "recordings": len(own)} | total(r.score for r in own).as_json()
        for folder, pipeline, own in _groups(rows)
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--pipelines", nargs="+", choices=PIPELINES, default=["aperta"])
    parser.add_argument("--reference", action="store_true", help="also run moonshine-voice's own pipeline")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, help="keep what was done in this file, and use what is there")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
