"""Aperta: a recording goes in; out come the stored audio, who said what, and rows that can be queried."""

__version__ = "0.1.0"
