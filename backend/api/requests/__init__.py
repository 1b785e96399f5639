"""How requests are read: bodies as streams, forms, tus headers."""
