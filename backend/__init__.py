"""Aperta: a recording goes in; out come the stored audio, who said what, and rows that can be queried.

Importing it tells libraries that report to their makers not to. This module runs before any of them is imported, in
every process: server, worker, decoder, command line.
"""

import os

__version__ = "0.1.0"

REPORTS_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_XET_TELEMETRY_ENABLED": "0",
    "PYANNOTE_METRICS_ENABLED": "0",
    "DBOS__CLOUD": "false",
}
"""Variables of onnxruntime, huggingface_hub, hf_xet, pyannote.audio and DBOS, with the values that keep them silent.

In its cloud mode DBOS reports to its maker's servers and takes another database than the configured one.
"""

# Assigned, not defaulted: an inherited 0, or an empty value, would turn the reports on again.
os.environ.update(REPORTS_OFF)
