"""How a command fails: with a sentence instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from backend.config import describe_invalid_settings
from backend.errors import AppError


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the command with one sentence for errors that name their cause."""
    try:
        yield
    except ValidationError as error:
        sys.exit(f"aperta: {describe_invalid_settings(error)}")
    except (AppError, OSError) as error:
        sys.exit(f"aperta: {error}")
