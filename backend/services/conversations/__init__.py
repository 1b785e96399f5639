"""Reading and deleting conversations."""
