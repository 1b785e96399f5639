"""What a job is made of besides rows: how far it is, and how an error survives the process that met it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from backend import errors

STAGE_WEIGHTS: Mapping[str, float] = {"decode": 3, "diarize": 52, "transcribe": 42, "store": 3}
"""Shares of a job's time, measured with the embedded engines on two cores (docs/BENCHMARKS.md)."""


class Superseded(Exception):
    """Another attempt, a cancellation or a deletion owns the job now: the result of this one is not wanted."""


def overall_progress(stages: Mapping[str, float]) -> float:
    """How much of a job is done.

    Args:
        stages: stage → its fraction done.

    Returns:
        0 to 1; below 1 until everything is stored.
    """
    done = sum(STAGE_WEIGHTS.get(stage, 0) * min(1.0, fraction) for stage, fraction in stages.items())
    return round(done / sum(STAGE_WEIGHTS.values()), 4)


def seconds_left(elapsed_s: float, progress: float) -> float | None:
    """Estimate the remaining seconds at the present rate; None while there is too little to go by."""
    if progress < 0.02 or elapsed_s <= 0:
        return None
    return round(elapsed_s * (1 - progress) / progress, 1)


def error_to_json(error: Exception) -> dict[str, object]:
    """An error for a row: which kind it is and what it says."""
    if not isinstance(error, errors.AppError):
        return {"kind": errors.ProcessingFailed.__name__, "detail": f"{type(error).__name__}: {error}"}
    known: dict[str, object] = {"kind": type(error).__name__, "detail": str(error)}
    if isinstance(error, errors.ProcessingFailed):
        known["conversation_id"] = error.conversation_id
    return known


def error_from_json(value: Mapping[str, object]) -> errors.AppError:
    """The error that `error_to_json` was given; kinds that this version does not know become an AppError."""
    kind, detail = errors.KINDS.get(str(value.get("kind")), errors.AppError), str(value.get("detail"))
    if issubclass(kind, errors.ProcessingFailed):
        return kind(detail, str(value.get("conversation_id", "")))
    return kind(detail)
