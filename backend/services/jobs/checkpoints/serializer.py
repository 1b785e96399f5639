"""What the durable engine writes down, as JSON: ids, results of steps, and errors by their kind. Knows no DBOS."""

from __future__ import annotations

import json
import logging
from typing import NoReturn

from backend.domain.jobs import Superseded, error_from_json, error_to_json
from backend.errors import KINDS

logger = logging.getLogger(__name__)

REFUSED = (
    "The job database holds a pickled row, and pickles can run programs: it is not read. Rows of that kind come from a "
    "version before checkpoints were JSON, or from somebody who may write to this database."
)


class JsonCheckpoints:
    """Values and errors as JSON text.

    An error comes back as the AppError that it was; one of another kind as a RuntimeError that names it.
    """

    def name(self) -> str:
        """What the rows are marked with."""
        return "aperta_json"

    def serialize(self, data: object) -> str:
        """
        Args:
            data: JSON values, tuples or an exception.

        Raises:
            TypeError: it is nothing of these.
        """
        if isinstance(data, Exception):
            return json.dumps({"error": _error_to_json(data)})
        return json.dumps({"value": data})

    def deserialize(self, serialized_data: str) -> object:
        """
        Raises:
            ValueError: the row is not one of `serialize`.
        """
        try:
            row = json.loads(serialized_data)
        except ValueError:
            return refuse_pickle(self, serialized_data)
        if isinstance(row, dict) and "value" in row:
            return row["value"]
        if isinstance(row, dict) and isinstance(row.get("error"), dict):
            return _error_from_json(row["error"])
        raise ValueError("A checkpoint in the job database is not one of Aperta's.")


def refuse_pickle(_serializer: object, _serialized_data: str) -> NoReturn:
    """What takes the place of unpickling.

    Raises:
        ValueError
    """
    logger.error("%s", REFUSED)
    raise ValueError(REFUSED)


def _error_to_json(error: Exception) -> dict[str, object]:
    tries = getattr(error, "errors", None)  # of a step that failed to the end: the last try says what it was
    if isinstance(tries, list) and tries and isinstance(tries[-1], Exception):
        error = tries[-1]
    if isinstance(error, Superseded):
        return {"kind": Superseded.__name__, "detail": str(error)}
    return error_to_json(error) | {"kind": type(error).__name__}


def _error_from_json(value: dict[str, object]) -> Exception:
    if value.get("kind") in KINDS:
        return error_from_json(value)
    if value.get("kind") == Superseded.__name__:
        return Superseded(value.get("detail"))
    return RuntimeError(str(value.get("detail")))
