"""The parts of the program that reads recordings. Only decoder.py imports them."""
