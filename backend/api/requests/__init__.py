"""What comes in: bodies as streams, forms, tus headers."""
