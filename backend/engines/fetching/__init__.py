"""How a speech model gets onto this disk."""
