"""People, and voices that are known."""
