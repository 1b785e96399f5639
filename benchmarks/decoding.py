"""What confinement costs: the same recordings decoded with and without it, in turns, and the ratio of their speeds.

    python -m benchmarks.decoding [--rounds 9] [--minutes 60] [RECORDING]

Takes the sample recording, which is short and shows the start of the process, and a long one that is made of it. Each
decoding starts a process, as in the service.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av

from backend.engines.audio.allowance import Allowance
from backend.engines.audio.confinement import Confinement
from backend.engines.audio.process import measure_confinement
from backend.engines.audio.samples import decode_tracks

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "meeting.flac"
MODES = (Confinement.OFF, Confinement.AUTO)


def main() -> None:
    arguments = _parse()
    print(f"holds here: {measure_confinement(Confinement.AUTO)}")
    with tempfile.TemporaryDirectory() as folder:
        long = _repeat(arguments.recording, Path(folder) / "long.opus", arguments.minutes * 60)
        print("| recording | time | unconfined (s) | confined (s) | speed confined / unconfined |")
        print("| --- | --- | --- | --- | --- |")
        for name, path in ((arguments.recording.name, arguments.recording), (f"{arguments.minutes} min of opus", long)):
            rounds = list(_rounds(path, arguments.rounds))
            for kind in ("elapsed", "computing"):
                off_s, on_s = (
                    statistics.median(getattr(one, kind) for one in side) for side in zip(*rounds, strict=True)
                )
                print(f"| {name} | {kind} | {off_s:.3f} | {on_s:.3f} | {off_s / on_s:.3f} |")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minutes", type=int, default=60)
    return parser.parse_args()


class _Times(NamedTuple):
    """Seconds on the clock, and seconds of the decoder's computing, which other programs disturb less."""

    elapsed: float
    computing: float


def _rounds(path: Path, count: int) -> Iterator[list[_Times]]:
    """Times without and with confinement, side by side: what else the machine does then slows both."""
    for number in range(count):
        times = {mode: _decode(path, mode) for mode in (MODES if number % 2 else MODES[::-1])}
        yield [times[mode] for mode in MODES]


def _decode(path: Path, confinement: Confinement) -> _Times:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    [track] = decode_tracks(path, separate=False, max_s=1e6, allowance=Allowance(confinement=confinement))
    track.close()
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return _Times(ended - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _repeat(source: Path, target: Path, seconds: float) -> Path:
    """The recording again and again as Opus, until it is long enough."""
    with av.open(str(target), "w") as output:
        stream = output.add_stream("libopus", rate=48_000, layout="mono")
        resampler = av.AudioResampler(stream.format, "mono", 48_000, frame_size=960)
        frames, n_samples = _decoded(source), 0
        while n_samples < seconds * 48_000:
            for frame in frames:
                frame.pts = None
                for piece in resampler.resample(frame):
                    n_samples += piece.samples
                    output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return target


def _decoded(source: Path) -> list[av.AudioFrame]:
    with av.open(str(source)) as recording:
        return list(recording.decode(audio=0))


if __name__ == "__main__":
    main()
