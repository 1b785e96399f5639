"""What becomes of stored objects over time."""
