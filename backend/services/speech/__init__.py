"""The speech pipeline."""
