"""What goes out, where it is more than a schema."""
