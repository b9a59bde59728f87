"""Reading ONNX files that nobody vouches for."""
