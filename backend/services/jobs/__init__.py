"""Jobs: accepting a recording, running it, and everything that keeps jobs exactly-once."""
