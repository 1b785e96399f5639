"""How likely it is that somebody speaks, moment by moment, and what follows for text that was heard there.

Engines write words where there are none: Whisper and Moonshine learned from subtitles, and end a tune with "Thank you
for watching". Diarization hears dial tones and sirens as voices. Speech detection (silero) hears neither, but misses
quiet and distant speech; so a text is only dropped where it hears next to nothing, or little and the text is one of
those that engines invent. Pure; no engine, no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRAME_S = 0.032
LIKELY = 0.5
"""From this probability on a frame counts as speech, as the model's authors advise."""
NOTHING = 0.08
"""Where no frame is likelier than this, nobody speaks. Tones and sirens reach 0.04, the faintest of real words 0.18."""
LITTLE_S = 0.25
"""Less speech than a word needs. A plucked string and a humming voice have up to 0.2 s."""
PAUSE_S = 0.5
MARGIN_S = 0.3
"""How far times of text and of speech may be apart."""

INVENTED = frozenset(
    {
        "you",
        "thank you",
        "thank you very much",
        "thank you so much",
        "thanks",
        "thanks for watching",
        "thank you for watching",
        "thank you for listening",
        "please subscribe",
        "bye",
        "bye bye",
        "oh",
        "ah",
        "eh",
        "uh",
        "um",
        "hmm",
        "mm",
        "music",
        "applause",
        "the end",
        "vielen dank",
        "untertitel von stephanie geiges",
        "untertitel der amara org community",
        "sous titres réalisés par la communauté d amara org",
        "sottotitoli creati dalla comunità amara org",
        "subtítulos realizados por la comunidad de amara org",
        "legendas pela comunidade amara org",
        "ご視聴ありがとうございました",
        "시청해주셔서 감사합니다",
        "谢谢观看",
    }
)
"""What engines write where nobody speaks, as collected by many users of Whisper; compared without punctuation."""


@dataclass(frozen=True, slots=True)
class SpeechEvidence:
    """Probability of speech for each `FRAME_S` of a recording, (n_frames,) float32."""

    probabilities: NDArray[np.float32]

    def most(self, start_s: float, end_s: float) -> float:
        """The highest probability between two instants; 0 outside the recording."""
        return float(self._between(start_s, end_s).max(initial=0.0))

    def seconds(self, start_s: float, end_s: float) -> float:
        """Seconds between two instants that are likely speech."""
        return int((self._between(start_s, end_s) >= LIKELY).sum()) * FRAME_S

    def spans(self) -> list[tuple[float, float]]:
        """Stretches of likely speech; pauses shorter than `PAUSE_S` do not part them."""
        frames = np.flatnonzero(self.probabilities >= LIKELY)
        if not len(frames):
            return []
        cuts = np.flatnonzero(np.diff(frames) * FRAME_S > PAUSE_S)
        firsts, lasts = frames[[0, *(cuts + 1)]], frames[[*cuts, -1]]
        return [(float(a) * FRAME_S, float(b + 1) * FRAME_S) for a, b in zip(firsts, lasts, strict=True)]

    def is_invented(self, text: str, start_s: float, end_s: float) -> bool:
        """Whether nobody can have said a text there."""
        around = (start_s - MARGIN_S, end_s + MARGIN_S)
        if self.most(*around) < NOTHING:
            return True
        return self.seconds(*around) < LITTLE_S and _plain(text) in INVENTED

    def _between(self, start_s: float, end_s: float) -> NDArray[np.float32]:
        return self.probabilities[max(0, int(start_s / FRAME_S)) : max(0, int(np.ceil(end_s / FRAME_S)))]


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().lower()
