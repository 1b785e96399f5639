"""The built-in diarizer: pyannote community-1 on ONNX Runtime."""
