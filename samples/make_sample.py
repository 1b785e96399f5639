"""Generate the sample meeting: a recording whose words and turns are known because it was made from them.

Debian's `flite` speaks each line with the voice of its speaker; the lines are placed on one 16 kHz mono time line and
written as FLAC, together with the turns (RTTM) and the words of every turn (STM). Running it again with the same
flite gives the same samples.

    apt-get install flite
    make sample
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
LEAD_S = 0.5
TURN_RMS = 0.06  # of full scale, the same for every turn
SILENCE_LEVEL = 0.01  # of a turn's peak; quieter than this at either end is not speech

VOICES = {"Maya": "slt", "Tom": "rms", "Ewan": "awb"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the dialogue; a negative gap starts it before the previous line has ended."""

    speaker: str
    gap_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A line at its place on the time line."""

    speaker: str
    start_s: float
    end_s: float
    text: str


DIALOGUE = (
    Line("Maya", 0.0, "Good morning, everyone. Let us begin with the library. How is the new reading room?"),
    Line(
        "Tom",
        0.6,
        "The shelves came on Tuesday, and the painters will finish tomorrow. We are still missing two lamps.",
    ),
    Line("Ewan", 0.5, "I called the shop about the lamps. They can deliver them on Friday morning."),
    Line("Maya", 0.7, "Very good. Can we still open on the first of March?"),
    Line("Tom", 0.5, "Yes, if the lamps come in time and nothing else goes wrong."),
    Line("Ewan", -0.4, "I will drive there and collect them myself if I have to."),
    Line(
        "Maya", 0.8, "Thank you both. Please send me the final costs by Thursday noon, and we meet again next Monday."
    ),
)


def main() -> None:
    """Write meeting.flac, meeting.rttm and meeting.stm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--name", default="meeting", help="name of the recording, without suffix")
    args = parser.parse_args()

    recording, turns = compose(DIALOGUE)
    write_flac(args.out / f"{args.name}.flac", recording)
    (args.out / f"{args.name}.rttm").write_text(rttm(args.name, turns), encoding="utf-8")
    (args.out / f"{args.name}.stm").write_text(stm(args.name, turns), encoding="utf-8")
    print(f"{args.name}: {recording.size / SAMPLE_RATE_HZ:.1f} s, {len(turns)} turns, {len(VOICES)} speakers")


def compose(dialogue: tuple[Line, ...]) -> tuple[NDArray[np.float32], list[Turn]]:
    """Speak every line and place it after the one before.

    Returns:
        `(n_samples,) float32, mono, 16 kHz, [-1, 1]`, and the turns in order of their start.
    """
    spoken = [speak(line.text, VOICES[line.speaker]) for line in dialogue]
    turns: list[Turn] = []
    end_s = LEAD_S
    for line, samples in zip(dialogue, spoken, strict=True):
        start_s = end_s + line.gap_s
        end_s = start_s + samples.size / SAMPLE_RATE_HZ
        turns.append(Turn(line.speaker, start_s, end_s, line.text))

    recording = np.zeros(round((end_s + LEAD_S) * SAMPLE_RATE_HZ), np.float32)
    for turn, samples in zip(turns, spoken, strict=True):
        first = round(turn.start_s * SAMPLE_RATE_HZ)
        recording[first : first + samples.size] += samples
    return np.clip(recording, -1.0, 1.0), turns


def speak(text: str, voice: str) -> NDArray[np.float32]:
    """Return flite's reading of a text, without the silence around it and at the common loudness."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
        with wave.open(str(path)) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE_HZ, 1, 2):
                raise SystemExit(f"flite's voice {voice} does not speak in 16 kHz mono 16 bit; take another voice")
            pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    samples = pcm.astype(np.float32) / 32_768
    loud = np.flatnonzero(np.abs(samples) > SILENCE_LEVEL * np.abs(samples).max())
    trimmed = samples[loud[0] : loud[-1] + 1]
    return np.asarray(trimmed * (TURN_RMS / np.sqrt(np.mean(trimmed**2))), np.float32)


def write_flac(path: Path, recording: NDArray[np.float32]) -> None:
    """Encode a recording as 16-bit FLAC."""
    pcm = np.round(recording * 32_767).astype(np.int16)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono", format="s16")
        stream.options = {"compression_level": "12"}
        frame = av.AudioFrame.from_ndarray(pcm[np.newaxis, :], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def rttm(name: str, turns: list[Turn]) -> str:
    """Return the turns as RTTM lines."""
    return "".join(
        f"SPEAKER {name} 1 {turn.start_s:.3f} {turn.end_s - turn.start_s:.3f} <NA> <NA> {turn.speaker} <NA> <NA>\n"
        for turn in turns
    )


def stm(name: str, turns: list[Turn]) -> str:
    """Return the turns and their words as STM lines."""
    return "".join(f"{name} 1 {turn.speaker} {turn.start_s:.3f} {turn.end_s:.3f} {turn.text}\n" for turn in turns)


if __name__ == "__main__":
    main()
