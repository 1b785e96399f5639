"""Points at which a server kills itself with SIGKILL, as `kill -9` or a power cut would, at the n-th time it comes by.

The points are methods of the application; one that was renamed is an error when the server starts.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

STORAGE = "backend.services.storage"


@dataclass(frozen=True, slots=True)
class Point:
    """Before or after a method runs.

    Attributes:
        operation: only for this call to S3; the method is then botocore's.
        often: the n-th time is drawn from 1 to this.
    """

    module: str
    owner: str
    method: str
    after: bool
    often: int = 4
    operation: str | None = None


def _point(module: str, name: str, when: str, often: int = 4) -> Point:
    owner, method = name.split(".")
    return Point(module, owner, method, when == "after", often)


def _s3(operation: str, when: str, often: int = 2) -> Point:
    return Point("botocore.client", "BaseClient", "_make_api_call", when == "after", often, operation)


UPLOAD = {
    "while spooling": _point(f"{STORAGE}.spool.writer", "Pipeline.add", "before", often=30),
    "spooled": _point(f"{STORAGE}.spool.temporary", "Spool._write", "after"),
    "before the rename": _point(f"{STORAGE}.spool.accepted", "AcceptedRecordings.add", "before"),
    "renamed": _point(f"{STORAGE}.spool.accepted", "AcceptedRecordings.add", "after"),
    "accepted": _point("backend.services.jobs.intake", "Intake._write", "after"),
    "between steps": _point("backend.services.jobs.steps", "DurableSteps.run", "after", often=12),
    "before the commit": _point("backend.services.processing.rows", "ResultRows.commit", "before"),
    "committed": _point("backend.services.processing.rows", "ResultRows.commit", "after"),
    "before the spool file goes": _point(f"{STORAGE}.spool.accepted", "AcceptedRecordings.remove", "before"),
}
LOCAL = {
    "before the link": _point(f"{STORAGE}.stores.local.store", "LocalStore._place", "before", often=9),
    "linked": _point(f"{STORAGE}.stores.local.store", "LocalStore._place", "after", often=9),
}
S3 = {
    "before the PUT": _s3("PutObject", "before", often=9),
    "PUT": _s3("PutObject", "after", often=9),
    "S3 part begun": _s3("UploadPart", "before"),
    "S3 part sent": _s3("UploadPart", "after"),
    "before the S3 complete": _s3("CompleteMultipartUpload", "before", often=1),
    "S3 complete": _s3("CompleteMultipartUpload", "after", often=1),
}
DRAIN = {
    "drain: read": _point(f"{STORAGE}.placement.mover", "Mover.copy", "before", often=9),
    "drain: copied": _point(f"{STORAGE}.placement.mover", "Mover.copy", "after", often=9),
    "drain: before the switch": _point("backend.services.lifecycle.drain", "DrainService._switch", "before", often=9),
    "drain: switched": _point(f"{STORAGE}.service", "StorageService.delete", "before", often=9),
    "drain: deleted": _point(f"{STORAGE}.service", "StorageService.delete", "after", often=9),
}
DELETE = {
    "delete: buried": _point("backend.services.conversations.deletion", "DeletionService._finish", "before", often=2),
    "delete: one object gone": _point(
        "backend.services.conversations.deletion", "DeletionService._delete_object", "after", often=5
    ),
    "delete: all objects gone": _point(
        "backend.services.conversations.deletion", "DeletionService._delete_unnamed", "after", often=2
    ),
}
POINTS = UPLOAD | LOCAL | S3 | DRAIN | DELETE


class Executioner:
    """Kills this process at the point that a pipe names."""

    def __init__(self, pipe: Path) -> None:
        self._left: dict[str, int] = {}
        self._lock = threading.Lock()
        for name, point in POINTS.items():
            self._install(name, point)
        # For reading and writing, so that opening does not wait and the end of one writer is not the end.
        self._pipe = os.fdopen(os.open(pipe, os.O_RDWR), "r")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._pipe:
            name, occurrence = json.loads(line)
            with self._lock:
                self._left = {name: occurrence}

    def _passes(self, name: str) -> bool:
        """Count; whether this was the time."""
        with self._lock:
            if name not in self._left:
                return False
            self._left[name] -= 1
            return self._left[name] == 0

    def _install(self, name: str, point: Point) -> None:
        owner = getattr(importlib.import_module(point.module), point.owner)
        setattr(owner, point.method, self._wrapped(name, point, getattr(owner, point.method)))

    def _wrapped(self, name: str, point: Point, real: Callable[..., Any]) -> Callable[..., Any]:
        def pass_by(after: bool, arguments: tuple[Any, ...]) -> None:
            concerned = point.operation is None or point.operation in arguments
            if after == point.after and concerned and self._passes(name):
                os.kill(os.getpid(), signal.SIGKILL)

        @wraps(real)
        async def awaited(*arguments: Any, **more: Any) -> Any:
            pass_by(False, arguments)
            result = await real(*arguments, **more)
            pass_by(True, arguments)
            return result

        @wraps(real)
        def called(*arguments: Any, **more: Any) -> Any:
            pass_by(False, arguments)
            result = real(*arguments, **more)
            pass_by(True, arguments)
            return result

        return awaited if inspect.iscoroutinefunction(real) else called
