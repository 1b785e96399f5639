"""The program that reads recordings, and its parts. Nothing outside this room imports them."""
