"""Signed callbacks."""
