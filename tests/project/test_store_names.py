"""What a store is called says nothing about what it can do: that is in its traits. And parts of storage are wired."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

BACKEND = ROOT / "backend"
STORAGE = BACKEND / "services" / "storage"
NAMES = {"local", "s3"}
MAY_KNOW = (STORAGE / "stores", STORAGE / "keys.py", STORAGE / "config.py")


def test_no_store_is_told_by_its_name() -> None:
    found = [place for path in _modules(MAY_KNOW) for place in _comparisons(path)]
    assert not found


def test_only_wiring_takes_storage_apart() -> None:
    modules = _modules((STORAGE, BACKEND / "wiring"))
    assert not [place for path in modules for place in _attributes(path, "parts")]


def _modules(but: tuple[Path, ...]) -> list[Path]:
    return [path for path in BACKEND.rglob("*.py") if not any(path.is_relative_to(place) for place in but)]


def _comparisons(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            compared = [node.value]
        else:
            continue
        if any(_names_a_store(part) for value in compared for part in ast.walk(value)):
            yield f"{path.relative_to(BACKEND)}:{node.lineno}"


def _names_a_store(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in NAMES


def _attributes(path: Path, name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        is_storage = isinstance(node, ast.Attribute) and node.attr == name and "storage" in ast.unparse(node.value)
        if is_storage:
            yield f"{path.relative_to(BACKEND)}:{node.lineno}"
