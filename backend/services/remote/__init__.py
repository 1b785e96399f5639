"""Requests to addresses that callers name, guarded."""
