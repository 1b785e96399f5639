"""Which store an object goes to, and moving it later."""
