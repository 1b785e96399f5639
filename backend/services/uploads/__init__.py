"""Resumable and direct uploads."""
