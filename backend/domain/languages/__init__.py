"""Languages: the codes that name them, and the scripts they are written in."""
