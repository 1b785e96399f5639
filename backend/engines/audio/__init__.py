"""Decoding recordings to samples."""
