"""The process in which TensorRT runs: starting it, talking to it, watching it, ending it."""
