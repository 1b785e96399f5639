"""Job databases as versions left them whose checkpoints were pickles, and as an intruder would leave them."""

from __future__ import annotations

import base64
import os
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path


class Program:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (str(self.path), os.O_CREAT | os.O_WRONLY)


def pickled(value: object) -> str:
    """As DBOS keeps it by default."""
    return base64.b64encode(pickle.dumps(value)).decode()


def age(database: Path, *, status: str | None = None, executor: str | None = None) -> None:
    """Have every workflow be one of the first version, with its input as a pickle.

    Args:
        status: what all of them are.
        executor: which process has them.
    """
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        for (name,) in connection.execute("SELECT workflow_uuid FROM workflow_status").fetchall():
            arguments = pickled({"args": (name,), "kwargs": {}})
            connection.execute("UPDATE workflow_input SET inputs = ? WHERE workflow_uuid = ?", (arguments, name))
        connection.execute(
            "UPDATE workflow_status SET application_version = '1', serialization = 'py_pickle', "
            "status = coalesce(?, status), executor_id = coalesce(?, executor_id)",
            (status, executor),
        )
        connection.execute("UPDATE operation_outputs SET serialization = 'py_pickle', output = ?", (pickled(None),))


def plant(database: Path, program: Program, mark: str | None) -> int:
    """Put a program in place of every workflow's input, under a mark of the serialization; returns of how many."""
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        connection.execute("UPDATE workflow_status SET serialization = ?", (mark,))
        return connection.execute("UPDATE workflow_input SET inputs = ?", (pickled(program),)).rowcount


def plant_step(database: Path, workflow_id: str, program: Program, column: str) -> None:
    """Put a program where the first step of a workflow left its output or error."""
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        connection.execute(
            "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, serialization, "
            f"retention_timestamp, {column}) VALUES (?, 1, 'decode', 'py_pickle', 0, ?)",
            (workflow_id, pickled(program)),
        )
