"""A build farm for TensorRT engines."""

__version__ = "0.1.0"
