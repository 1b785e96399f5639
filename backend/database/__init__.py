"""Rows: models, sessions and every query."""
