"""The object stores behind one port: local, S3, memory."""
