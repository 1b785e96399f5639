"""How a transcript is shown: text, subtitles."""
