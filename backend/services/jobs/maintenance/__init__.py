"""Periodic work, a module for each thing it looks after. When it runs is in `schedule.py`."""
