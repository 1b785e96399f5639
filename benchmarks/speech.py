"""The whole speech pipeline against moonshine-voice's own: speed per stage, peak memory, errors.

    python -m benchmarks.speech RECORDING|FOLDER ... [--reference-up-to-seconds 150] [--json FILE]

NAME.rttm and NAME.stm beside a recording say who spoke when and who said what; without them only speed and memory are
measured. Of a folder those recordings are taken that have one of them. Every run has a process of its own, with its
models loaded before the clock starts.

Speeds are times real time: seconds of audio per second of waiting; "per core" is per second of processor time, summed
over cores, which neighbours on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.engines.audio.samples import probe
from benchmarks import pipelines
from benchmarks.pipelines import PIPELINES, STAGES, Run
from benchmarks.report import UNKNOWN, describe, machine, table
from benchmarks.scoring import Score, find_recordings, find_truth, missing_packages, score, total

ERRORS = {"der": "DER %", "segment_der": "DER % (segments)", "wer": "WER %", "cpwer": "cpWER %"}
HEAD = ("recording", "pipeline", "seconds", *STAGES, "total", "per core", "peak MB", "speakers", *ERRORS.values())


@dataclass(frozen=True, slots=True)
class Row:
    """One pipeline on one recording or all of a folder; `run` is None if the recording is too long for it."""

    recording: str
    folder: Path
    pipeline: str
    speakers: str
    run: Run | None
    score: Score


def main() -> None:
    args = _arguments()
    if lacking := missing_packages():
        print(f"{lacking} Without, only speed and memory are measured.", file=sys.stderr)
    where, rows = machine(), []
    for row in _measure(args, scored=not lacking):
        rows.append(row)
        print(table(HEAD, [_cells(row)], left=2).splitlines()[-1], file=sys.stderr, flush=True)
    rows += list(_summed(rows))
    print(describe(where), table(HEAD, map(_cells, rows), left=2), sep="\n\n")
    if args.json:
        report = {"machine": where, "rows": [_as_json(row) for row in rows]}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def _measure(args: argparse.Namespace, *, scored: bool) -> Iterator[Row]:
    for recording in find_recordings(args.recordings):
        truth = find_truth(recording)
        for pipeline in args.pipelines:
            done = None
            if not _is_slow(pipeline) or _seconds(recording) <= args.reference_up_to_seconds:
                done = pipelines.run(pipeline, recording, args.threads)
            errors = score(truth, done) if done and scored else Score()
            speakers = f"{done.speakers} of {truth.speakers or '?'}" if done else UNKNOWN
            yield Row(recording.stem, recording.parent, pipeline, speakers, done, errors)


def _summed(rows: Sequence[Row]) -> Iterator[Row]:
    """A row for each pipeline and folder of which several recordings were run: sums, and the highest peak."""
    for folder, pipeline in dict.fromkeys((row.folder, row.pipeline) for row in rows):
        own = [row for row in rows if (row.folder, row.pipeline) == (folder, pipeline)]
        runs = [row.run for row in own if row.run]
        if len(runs) > 1 and len(runs) == len(own):
            summed = total(row.score for row in own)
            right = f"right in {summed.counts_right} of {summed.counted}" if summed.counted else UNKNOWN
            yield Row(f"{folder.name}, all {len(runs)}", folder, pipeline, right, _sum(runs), summed)


def _sum(runs: Sequence[Run]) -> Run:
    stages = {stage: sum(run.stages.get(stage, 0.0) for run in runs) for stage in runs[0].stages}
    return Run(
        runs[0].pipeline,
        audio_s=sum(run.audio_s for run in runs),
        total_s=sum(run.total_s for run in runs),
        cpu_s=sum(run.cpu_s for run in runs),
        peak_mb=max(run.peak_mb for run in runs),
        turns=(),
        stages=stages,
    )


def _is_slow(pipeline: str) -> bool:
    return pipeline.startswith("moonshine")


def _seconds(recording: Path) -> float:
    duration_s = probe(recording).duration_s
    return float("inf") if duration_s is None else duration_s


def _cells(row: Row) -> list[object]:
    done = row.run
    if done is None:
        return [row.recording, row.pipeline, *[UNKNOWN] * (len(HEAD) - 2)]
    stages = [_times(done.audio_s, done.stages.get(stage)) for stage in STAGES]
    speeds = [*stages, _times(done.audio_s, done.total_s), _times(done.audio_s, done.cpu_s)]
    errors = [row.score.show(name) for name in ERRORS]
    return [row.recording, row.pipeline, f"{done.audio_s:.0f}", *speeds, done.peak_mb, row.speakers, *errors]


def _times(audio_s: float, seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    times = audio_s / max(seconds, 1e-3)
    return f"{times:.1f}" if times < 1000 else "> 1000"


def _as_json(row: Row) -> dict[str, object]:
    plain: dict[str, object] = {"recording": row.recording, "pipeline": row.pipeline}
    if row.run is None:
        return plain
    run = row.run
    measured = {"audio_s": run.audio_s, "total_s": run.total_s, "cpu_s": run.cpu_s, "stages_s": run.stages}
    times = {"times_real_time": round(run.audio_s / run.total_s, 2), "peak_mb": run.peak_mb}
    return plain | measured | times | {"speakers": row.speakers, "errors_percent": row.score.as_json()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--pipelines", nargs="+", choices=PIPELINES, default=["aperta", "moonshine"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--reference-up-to-seconds", type=float, default=150, help="longest for moonshine's slow own (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
