"""Helpers for concurrency: lanes of threads, waiting, periodic rounds, rates. They know nothing of the product."""
