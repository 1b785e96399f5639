"""NVIDIA's Parakeet TDT on ONNX Runtime, through onnx-asr."""
