"""Speech engines: one file per engine, all behind the protocols of `base.py`."""
