"""Characters that are not seen, and can make a name look like another one or break a line, a header or a log."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # format characters that Persian words and emoji are spelled with


def is_hidden(char: str) -> bool:
    """Control, bidi and other format characters, lone surrogates, line separators and noncharacters."""
    if char in _JOINERS:
        return False
    noncharacter = ord(char) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(char) <= 0xFDEF
    return noncharacter or unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def plain(text: str) -> str:
    """Return the text in NFC, so that what looks the same is the same.

    Raises:
        ValueError: it holds a hidden character.
    """
    if hidden := next((char for char in text if is_hidden(char)), None):
        raise ValueError(f"must not hold control, text direction or other invisible characters (U+{ord(hidden):04X})")
    return unicodedata.normalize("NFC", text)
