"""Frozen values and pure functions. No I/O."""
