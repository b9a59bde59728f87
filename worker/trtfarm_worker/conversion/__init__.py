"""Typed models: float16 put into an ONNX file by ONNX Runtime's converter, in a process of its own."""
