"""Recordings on their way in: files on the local disk before they are objects."""
