"""Requests and responses, one file per noun."""
