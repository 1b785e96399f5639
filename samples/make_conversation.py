"""Compose the sample conversation from utterances of LibriSpeech: three people, seven turns, no overlap.

LibriSpeech (V. Panayotov, G. Chen, D. Povey, S. Khudanpur, 2015; https://www.openslr.org/12, CC BY 4.0) is read speech;
its test-other set is needed here. The same files always give the same samples.

    python -m samples.make_conversation --utterances LibriSpeech/test-other
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from samples.make_sample import LEAD_S, SAMPLE_RATE_HZ, TURN_RMS, Turn, rttm, stm, write_flac

NAME = "conversation"
FRAME = SAMPLE_RATE_HZ // 50
QUIET_DB = -35.0
"""Quieter than this below an utterance's loudest 20 ms is silence at its ends."""
KEPT_S = 0.1
FADE_S = 0.02


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance, the pause before it, and its words."""

    file: str
    gap_s: float
    text: str

    @property
    def speaker(self) -> str:
        return self.file.split("-")[0]


UTTERANCES = (
    Utterance(
        "367-130732-0004",
        0.0,
        "a book could be written about this restaurant and then all would not be told "
        "for all its secrets can never be known",
    ),
    Utterance("1688-142285-0003", 0.5, "i really liked that account of himself better than anything else he said"),
    Utterance("3080-5032-0003", 0.6, "why did you not send me that news and a garland"),
    Utterance("367-130732-0001", 0.7, "when is a lobster not a lobster when it is a crayfish"),
    Utterance("1688-142285-0005", 0.4, "you who were always accusing people of being shoppy at helstone"),
    Utterance(
        "3080-5032-0008",
        0.6,
        "tis a strange change and i am very sorry for it but i'll swear i know not how to help it",
    ),
    Utterance("367-130732-0009", 0.7, "serve in a chafing dish with thin slices of dry toast"),
)


def main() -> None:
    """Write conversation.flac, conversation.rttm and conversation.stm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=Path, required=True, help="folder with LibriSpeech's FLAC files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    args = parser.parse_args()

    recording, turns = compose(args.utterances)
    write_flac(args.out / f"{NAME}.flac", recording)
    (args.out / f"{NAME}.rttm").write_text(rttm(NAME, turns), encoding="utf-8")
    (args.out / f"{NAME}.stm").write_text(stm(NAME, turns), encoding="utf-8")
    print(f"{NAME}: {recording.size / SAMPLE_RATE_HZ:.1f} s, {len(turns)} turns")


def compose(folder: Path) -> tuple[NDArray[np.float32], list[Turn]]:
    """Place each utterance after the one before.

    Returns:
        `(n_samples,) float32, mono, 16 kHz, [-1, 1]`, and the turns in order of their start.
    """
    parts, turns, end_s = [np.zeros(round(LEAD_S * SAMPLE_RATE_HZ), np.float32)], [], LEAD_S
    for utterance in UTTERANCES:
        [path] = folder.rglob(f"{utterance.file}.flac")
        samples = trimmed(read(path))
        parts += [np.zeros(round(utterance.gap_s * SAMPLE_RATE_HZ), np.float32), samples]
        start_s = end_s + utterance.gap_s
        end_s = start_s + samples.size / SAMPLE_RATE_HZ
        turns.append(Turn(utterance.speaker, start_s, end_s, utterance.text))
    parts.append(np.zeros(round(LEAD_S * SAMPLE_RATE_HZ), np.float32))
    return np.clip(np.concatenate(parts), -1.0, 1.0), turns


def read(path: Path) -> NDArray[np.float32]:
    """(n_samples,) of a mono FLAC file of 16 bits at 16 kHz."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32_768


def trimmed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """An utterance without the silence around it, faded in and out, at the common loudness."""
    rms = np.sqrt(np.square(samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)).mean(axis=1))
    loud = np.flatnonzero(rms > rms.max() * 10 ** (QUIET_DB / 20))
    kept = round(KEPT_S * SAMPLE_RATE_HZ)
    cut = samples[max(0, loud[0] * FRAME - kept) : (loud[-1] + 1) * FRAME + kept].copy()
    fade = np.linspace(0, 1, round(FADE_S * SAMPLE_RATE_HZ), dtype=np.float32)
    cut[: fade.size] *= fade
    cut[-fade.size :] *= fade[::-1]
    return np.asarray(cut * (TURN_RMS / np.sqrt(np.mean(cut**2))), np.float32)


if __name__ == "__main__":
    main()
