"""Scripts that write no blanks between words: where a line may break in them, and how many words a text has. Pure."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from math import ceil

from backend.domain.transcript import Segment

_EAST_ASIAN = (
    "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Han, kana."""
_SOUTH_EAST_ASIAN = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
"""Thai, Lao, Tibetan, Burmese, Khmer, the Tai scripts."""
_UNSPACED = re.compile(f"[{_EAST_ASIAN}{_SOUTH_EAST_ASIAN}]")
_PIECE = re.compile(f"[{_EAST_ASIAN}]|[{_SOUTH_EAST_ASIAN}]+|[^{_EAST_ASIAN}{_SOUTH_EAST_ASIAN}]+")
_SOUTH_EAST_ASIAN_WORD_LETTERS = 4

_FULL_STOPS = "。、\uff01\uff0c\uff0e\uff1a\uff1b\uff1f"
_NEVER_FIRST = "ー々〻ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶｰฯะาำๆະາຳໆ་།\u200d"
"""Beside marks and closing punctuation: small and repeated kana, vowels that follow their consonant, joiners."""
_NEVER_LAST = "เแโใไເແໂໃໄ\u0f39\u1039\u17d2\u200d"
"""Beside opening punctuation: vowels that precede their consonant, signs that stack the next one, joiners."""


def may_break(before: str, after: str) -> bool:
    """Tell whether a line may end between two characters that have no blank between them."""
    kinds = unicodedata.category(before), unicodedata.category(after)
    if before in _NEVER_LAST or kinds[0] in {"Ps", "Pi"}:
        return False
    if after in _NEVER_FIRST or kinds[1] in {"Pe", "Pf", "Po", "Mn", "Mc", "Me"}:
        return False
    return before in _FULL_STOPS or bool(_UNSPACED.match(before) or _UNSPACED.match(after))


def break_apart(token: str) -> list[str]:
    """Return the pieces of a text without blanks between which a line may break."""
    pieces = [token[:1]]
    for before, after in pairwise(token):
        if may_break(before, after):
            pieces.append(after)
        else:
            pieces[-1] += after
    return pieces


def count_words(segment: Segment) -> int:
    """Count the words of a segment.

    Words with blanks between them are counted by the blanks. In other scripts the engine's words count; if there are
    none, each Chinese or Japanese character is a word, and so are four letters of Thai, Lao, Tibetan, Burmese or Khmer.
    """
    if segment.words and _UNSPACED.search(segment.text):
        return sum(any(char.isalnum() for char in word.text) for word in segment.words)
    return sum(_count(token) for token in segment.text.split())


def _count(token: str) -> int:
    if not _UNSPACED.search(token):
        return 1
    return sum(_weight(piece) for piece in _PIECE.findall(token))


def _weight(piece: str) -> int:
    letters = sum(char.isalnum() for char in piece)
    joined = re.match(f"[{_SOUTH_EAST_ASIAN}]", piece)
    return ceil(letters / _SOUTH_EAST_ASIAN_WORD_LETTERS) if joined else min(letters, 1)
