"""`python -m backend.cli` is `aperta`."""

from backend.cli import app

app()
