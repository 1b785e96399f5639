"""Eight languages: each is found, and what was said is recognisable."""

from __future__ import annotations

import csv
import re
import unicodedata

import pytest

from tests.support.conversations import EVALUATION
from tests.whisper.conftest import Process

if not EVALUATION.is_dir():
    pytest.skip("no recordings in other languages beside the clone", allow_module_level=True)

with (EVALUATION / "languages" / "transcripts.tsv").open(encoding="utf-8", newline="") as table:
    ROWS = list(csv.DictReader(table, delimiter="\t"))
MOST_WRONG = 0.45
"""Characters that may be wrong, of those said; Whisper base is weakest in Japanese and Korean."""


def letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()


def edits(said: str, heard: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


@pytest.mark.parametrize("row", ROWS, ids=[row["language"] for row in ROWS])
def test_a_language_is_found_and_transcribed(process: Process, row: dict[str, str]) -> None:
    result = process("base", EVALUATION / "languages" / row["file"])
    assert result.transcript.language == row["language"]
    said, heard = letters(row["text"]), letters(" ".join(segment.text for segment in result.transcript.segments))
    assert edits(said, heard) <= MOST_WRONG * len(said)
