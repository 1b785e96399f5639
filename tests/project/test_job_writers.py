"""One module writes the state of a job."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

BACKEND = ROOT / "backend"
WRITER = BACKEND / "database" / "jobs.py"
STATE = {"status", "worker_id", "attempt", "crashes", "stage", "progress", "started_at", "finished_at"}
HOLDERS = {"job", "fresh", "orphan"}
"""What variables that hold a job are called."""


def writes(tree: ast.AST) -> Iterator[str]:
    """Each place where code writes a job's state by itself."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="update"), args=[ast.Name(id="Job"), *_]):
                yield f"{node.lineno}: update(Job)"
            case ast.Call(func=ast.Name(id="Job"), keywords=keywords):
                yield from (f"{node.lineno}: Job({found.arg}=)" for found in keywords if found.arg in STATE)
            case ast.Attribute(value=ast.Name(id=name), attr=attr, ctx=ast.Store()) if (
                name in HOLDERS and attr in STATE
            ):
                yield f"{node.lineno}: {name}.{attr} ="
            case ast.Call(func=ast.Name(id="setattr"), args=[ast.Name(id=name), *_]) if name in HOLDERS:
                yield f"{node.lineno}: setattr({name})"


@pytest.mark.parametrize(
    "code",
    [
        "update(Job).where(Job.id == 1).values(status='queued')",
        "Job(id='1', status='queued')",
        "job.status = 'queued'",
        "job.status, job.stage = 'queued', None",
        "job.crashes += 1",
        "setattr(job, 'status', 'queued')",
    ],
)
def test_a_write_is_found(code: str) -> None:
    assert [*writes(ast.parse(code))]


def test_reading_a_state_is_no_write() -> None:
    assert not [*writes(ast.parse("row.status = 'failed'\nx = job.status\nselect(Job).where(Job.status == 'queued')"))]


def test_only_one_module_writes_the_state_of_a_job() -> None:
    found = {
        str(path.relative_to(BACKEND)): places
        for path in sorted(BACKEND.rglob("*.py"))
        if path != WRITER and (places := [*writes(_parsed(path))])
    }
    assert not found


def test_the_writer_is_where_the_guard_expects_it() -> None:
    assert [*writes(_parsed(WRITER))]


def _parsed(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))
