"""Who writes rows: every query is in `database/`, and a transcript has one writer and one eraser."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

BACKEND = ROOT / "backend"
DATABASE = BACKEND / "database"
WRITES = {"insert", "delete", "update"}


@pytest.mark.parametrize("row", ["SegmentRow", "Participant"])
def test_only_the_transcripts_module_writes_and_erases_the_rows_of_a_transcript(row: str) -> None:
    writers = {path for path in BACKEND.rglob("*.py") if row in _written(path)}
    assert writers == {DATABASE / "transcripts.py"}


def _written(path: Path) -> Iterator[str]:
    """Yield the names that a module constructs, inserts, updates or deletes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield _name(node.func)
            if _name(node.func) in WRITES:
                yield from (_name(argument) for argument in node.args)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
