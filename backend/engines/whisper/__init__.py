"""Whisper through faster-whisper: windows cut in silence, decoded in batches and in rounds."""
