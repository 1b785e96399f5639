"""The built-in transcriber: Moonshine on ONNX Runtime."""
