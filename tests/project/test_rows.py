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
SESSION_QUERIES = {"delete", "execute", "get", "scalar", "scalars"}
QUERIES = {".sqlalchemy", *(f"sqlalchemy.{name}" for name in ("select", *WRITES))}


@pytest.mark.parametrize("row", ["SegmentRow", "Participant"])
def test_only_the_transcripts_module_writes_and_erases_the_rows_of_a_transcript(row: str) -> None:
    writers = {path for path in BACKEND.rglob("*.py") if row in _written(path)}
    assert writers == {DATABASE / "transcripts.py"}


def test_only_the_objects_module_makes_rows_of_stored_objects() -> None:
    makers = {path for path in BACKEND.rglob("*.py") if "StoredObjectRow" in _called(path)}
    assert makers == {DATABASE / "objects.py"}


def test_only_the_database_layer_has_queries() -> None:
    elsewhere = [path for path in BACKEND.rglob("*.py") if DATABASE not in path.parents]
    assert not [
        path for path in elsewhere if QUERIES & _imported(path) or SESSION_QUERIES & _called_on(path, "session")
    ]


def _called(path: Path) -> set[str]:
    return {_name(node.func) for node in _nodes(path) if isinstance(node, ast.Call)}


def _called_on(path: Path, receiver: str) -> set[str]:
    calls = [node.func for node in _nodes(path) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return {call.attr for call in calls if _name(call.value) == receiver}


def _imported(path: Path) -> set[str]:
    imports = [node for node in _nodes(path) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {f"{getattr(node, 'module', '')}.{alias.name}" for node in imports for alias in node.names}


def _written(path: Path) -> Iterator[str]:
    """Yield the names that a module constructs, inserts, updates or deletes."""
    for node in _nodes(path):
        if isinstance(node, ast.Call):
            yield _name(node.func)
            if _name(node.func) in WRITES:
                yield from (_name(argument) for argument in node.args)


def _nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
