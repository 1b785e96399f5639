"""Checkpoints of jobs: what the durable engine writes down, and the database that it writes to."""
