"""What becomes of recordings as programs and accidents make them: duration, times of words, speakers, warnings.

    python -m benchmarks.containers [--speech] [--chromium PROGRAM] [--keep FOLDER] [NAME ...]

Makes the files of `odd_recordings`, all of the same speech, and compares what Aperta says with where the speech was put
and with what FFmpeg (as `ffprobe` shows it) and, with `--chromium`, a browser's player give as duration. Without
`--speech` the sound itself is looked at, not the words: the beginnings of what is said. Ends with 1 if a file is wrong.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from anyio.from_thread import BlockingPortal, start_blocking_portal

from backend.engines.audio.samples import SAMPLE_RATE_HZ, decode_tracks
from backend.errors import AppError
from benchmarks.odd_recordings import Expected, Odd, Samples, odd_recordings
from benchmarks.report import UNKNOWN, table

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "meeting.flac"
HEAD = (
    *("file", "what is odd", "answer", "expected (s)", "Aperta (s)", "FFmpeg (s)", "player (s)", "times off by (s)"),
    *("speakers", "warnings"),
)
SPEECH_S, PAUSE_S = 11.8, 5.4
"""Two speakers of the sample with one turn each, and the pause between them."""
TOLERANCE_S = 0.1
WORD_TOLERANCE_S = 0.25
"""Engines place the words of the same speech a little differently in other surroundings and codecs."""
PLAYED_BY_CHROMIUM = {".mp4", ".m4a", ".mov", ".mkv", ".webm", ".opus", ".oga", ".ogg", ".mp3", ".wav", ".flac", ".aac"}
MAX_AUDIO_S = 43_200


@dataclass(frozen=True, slots=True)
class Heard:
    """What Aperta makes of a file. `begins_s` are the times at which somebody begins to speak."""

    duration_s: float
    begins_s: tuple[float, ...]
    warnings: tuple[str, ...]
    speakers: int | None = None


Hear = Callable[[Path], Heard]
Play = Callable[[Path], float | None]


def main() -> None:
    arguments = _parse()
    with (
        tempfile.TemporaryDirectory() as temporary,
        _player(arguments.chromium) as play,
        start_blocking_portal() as portal,
    ):
        hear = _heard_words(portal) if arguments.speech else hear_sound
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        speech = read_speech()
        plain = hear(_write_plain(folder, speech))
        rows = list(_rows(arguments.names, folder, speech, plain, hear, play))
    print(table(HEAD, rows, left=3))
    wrong = sum(row[2] == "WRONG" for row in rows)
    print(f"\n{len(rows)} files, {wrong} wrong; the plain speech has {plain.speakers or UNKNOWN} speakers.")
    raise SystemExit(1 if wrong else 0)


def read_speech() -> Samples:
    """(1, n) float32 at 16 kHz."""
    [audio] = decode_tracks(SAMPLE, separate=False, max_s=MAX_AUDIO_S)
    with audio:
        return audio.seconds(0.0, SPEECH_S)[None]


def hear_sound(path: Path) -> Heard:
    """Decode a file, and find out where sound begins after a pause."""
    [audio] = decode_tracks(path, separate=False, max_s=MAX_AUDIO_S)
    with audio:
        losses = tuple(loss.sentence for loss in audio.losses)
        return Heard(audio.duration_s, tuple(_begins_s(audio.read())), losses)


def judge(expected: Expected, plain: Heard, heard: Heard, tolerance_s: float = TOLERANCE_S) -> tuple[bool, float]:
    """Whether all is as it should be, and by how much the times are off.

    Where speech is damaged, only the beginnings outside the damage count.
    """
    wanted = [expected.at(second) for second in plain.begins_s if not _is_lost(expected, second)]
    off_s = max((min((abs(second - want) for second in heard.begins_s), default=1e9) for want in wanted), default=0.0)
    is_right = abs(heard.duration_s - expected.duration_s) <= TOLERANCE_S and off_s <= tolerance_s
    if not expected.lost_s:
        is_right &= heard.speakers == plain.speakers and len(heard.begins_s) == len(plain.begins_s)
    return is_right and (bool(heard.warnings) or not expected.must_warn), off_s


def _is_lost(expected: Expected, second: float) -> bool:
    return any(start_s - 1.0 <= second <= end_s for start_s, end_s in expected.lost_s)


def _rows(
    names: list[str], folder: Path, speech: Samples, plain: Heard, hear: Hear, play: Play
) -> Iterator[tuple[object, ...]]:
    for odd in odd_recordings(PAUSE_S):
        if not names or odd.name in names:
            yield _row(odd, folder, speech, plain, hear, play)


def _row(odd: Odd, folder: Path, speech: Samples, plain: Heard, hear: Hear, play: Play) -> tuple[object, ...]:
    path = folder / odd.name
    expected = odd.make(path, speech)
    outside = (_number(_duration_s(path)), _number(play(path)))
    try:
        heard = hear(path)
    except AppError as error:
        answer = "refused" if expected.may_refuse else "WRONG"
        return odd.name, odd.oddity, answer, _number(expected.duration_s), UNKNOWN, *outside, UNKNOWN, UNKNOWN, error
    is_right, off_s = judge(expected, plain, heard, TOLERANCE_S if heard.speakers is None else WORD_TOLERANCE_S)
    times = (_number(expected.duration_s), _number(heard.duration_s), *outside, _number(off_s))
    speakers = UNKNOWN if heard.speakers is None else heard.speakers
    return odd.name, odd.oddity, "right" if is_right else "WRONG", *times, speakers, " ".join(heard.warnings)


def _number(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds:.2f}"


def _begins_s(samples: Samples) -> Iterator[float]:
    """Where a second and more of loud sound is more than half a second behind other sound."""
    frames = np.abs(samples[: len(samples) // 160 * 160]).reshape(-1, 160).max(axis=1)
    loud = np.flatnonzero(frames > 0.1 * frames.max(initial=1e-9))
    if len(loud):
        starts = loud[np.flatnonzero(np.diff(loud, prepend=-1000) > 60)]
        yield from (float(start) * 160 / SAMPLE_RATE_HZ for start in starts)


def _write_plain(folder: Path, speech: Samples) -> Path:
    path = folder / "plain.wav"
    data = (speech[0] * 32_767).astype("<i2").tobytes()
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.frombuffer(data, "<i2")[None], format="s16", layout="mono")
        frame.rate = SAMPLE_RATE_HZ
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def _duration_s(path: Path) -> float | None:
    try:
        with av.open(str(path)) as container:
            return container.duration / 1_000_000 if container.duration else None
    except av.error.FFmpegError:
        return None


def _heard_words(portal: BlockingPortal) -> Hear:
    """The whole pipeline with the built-in engines: words in place of sound."""
    from backend.engines.community1.diarizer import Community1Diarizer
    from backend.engines.lazy import Lazy
    from backend.engines.moonshine.transcriber import MoonshineTranscriber
    from backend.services.speech.pipeline import SpeechPipeline
    from backend.services.speech.steps import DirectSteps
    from backend.services.speech.values import SpeechOptions

    pipeline = SpeechPipeline(
        Lazy("transcriber", MoonshineTranscriber), Lazy("diarizer", Community1Diarizer), max_audio_s=MAX_AUDIO_S
    )

    def hear(path: Path) -> Heard:
        result = portal.call(pipeline.run, path, SpeechOptions(), DirectSteps())
        segments = result.transcript.segments
        begins = tuple(
            segment.start_s
            for number, segment in enumerate(segments)
            if number == 0 or segment.speaker != segments[number - 1].speaker
        )
        warnings = tuple(loss.sentence for loss in result.losses)
        return Heard(result.duration_s, begins, warnings, len({segment.speaker for segment in segments}))

    return hear


@contextmanager
def _player(program: Path | None) -> Iterator[Play]:
    """What a browser's audio element gives as duration, if there is a browser."""
    if program is None:
        yield lambda _path: None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(program), args=["--no-sandbox"])
        page = browser.new_page()

        def play(path: Path) -> float | None:
            if path.suffix not in PLAYED_BY_CHROMIUM:
                return None
            page.goto(path.resolve().parent.as_uri())
            return page.evaluate(_READ_DURATION, path.resolve().as_uri())  # type: ignore[no-any-return]

        yield play
        browser.close()


_READ_DURATION = """address => new Promise(done => {
  const player = new Audio();
  player.onloadedmetadata = () => {
    if (Number.isFinite(player.duration)) return done(player.duration);
    player.ondurationchange = () => Number.isFinite(player.duration) && done(player.duration);
    player.currentTime = 1e9;
  };
  player.onerror = () => done(null);
  setTimeout(() => done(null), 5000);
  player.src = address;
})"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="files of the table to make; default: all")
    parser.add_argument("--speech", action="store_true", help="transcribe and diarize")
    parser.add_argument("--chromium", type=Path, help="the program of a browser")
    parser.add_argument("--keep", type=Path, help="folder for the files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
