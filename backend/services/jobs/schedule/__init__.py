"""Periodic work: the table of what runs when and where, the scheduler that runs it, and the rows of its runs."""
