"""The diarizer of pyannote.audio."""
