"""Inputs and outputs of one execution context: pinned on the host, allocated on the device."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtfarm.contract.benchmark_inputs import check_names, check_size
from trtfarm.errors import ProfileInvalidError
from trtfarm_worker.tensorrt.cuda import Cuda

_GPU_ALIGNMENT = 256


class Buffers:
    """Device and host memory of every I/O tensor, for fixed shapes."""

    def __init__(self, trt: Any, cuda: Cuda, engine: Any, context: Any) -> None:
        self._cuda = cuda
        self._allocations: list[tuple[str, Any]] = []
        self.inputs: list[tuple[int, int, int]] = []  # device, host, bytes
        self.outputs: list[tuple[int, int, int]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            shape = tuple(context.get_tensor_shape(name))
            if min(shape, default=1) < 0:
                raise ProfileInvalidError(f"The shape of {name} is not known: {shape}.")
            self.shapes[name] = shape
            size = max(_size_bytes(trt, engine.get_tensor_dtype(name), shape), _GPU_ALIGNMENT)
            device, host = cuda("Malloc", size), cuda("MallocHost", size)
            self._allocations += [("Free", device), ("FreeHost", host)]
            context.set_tensor_address(name, int(device))
            (self.inputs if is_input else self.outputs).append((int(device), int(host), size))

    def close(self) -> None:
        for free, pointer in reversed(self._allocations):
            self._cuda(free, pointer)
        self._allocations.clear()


def fill(trt: Any, cuda: Cuda, engine: Any, buffers: Buffers, files: Mapping[str, Path], seed: int) -> None:
    """The files' raw values, and for other inputs seeded ones by type.

    Those are floats in -1…1 and integers 0 or 1, which are valid indices nearly everywhere.

    Raises:
        InvalidRequestError: a file for an input that there is not, or with more or fewer bytes than it takes.
    """
    random = np.random.default_rng(seed)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    check_names(files, dict.fromkeys(inputs))
    for name, (device, host, size) in zip(inputs, buffers.inputs, strict=True):
        dtype, shape = engine.get_tensor_dtype(name), buffers.shapes[name]
        if name in files:
            data = files[name].read_bytes()
            check_size(name, dtype.name.lower(), shape, _size_bytes(trt, dtype, shape), len(data))
        else:
            count = int(np.prod(shape, dtype=np.int64))
            data = _values(dtype.name, count, random).tobytes()
        ctypes.memmove(host, data, min(len(data), size))
        cuda("Memcpy", device, host, size, cuda.api.cudaMemcpyKind.cudaMemcpyDefault)


def _values(dtype: str, count: int, random: np.random.Generator) -> np.ndarray[Any, Any]:
    floats = {"FLOAT": np.float32, "HALF": np.float16}
    if dtype in floats:
        return random.uniform(-1, 1, count).astype(floats[dtype])
    if dtype == "BF16":
        # The upper half of a float32.
        bits = random.uniform(-1, 1, count).astype(np.float32).view(np.uint32)
        return (bits >> 16).astype(np.uint16)
    wide = {"INT32": np.int32, "INT64": np.int64}.get(dtype, np.uint8)
    return random.integers(0, 2, count).astype(wide)


def _size_bytes(trt: Any, dtype: Any, shape: tuple[int, ...]) -> int:
    count = int(np.prod(shape, dtype=np.int64))
    itemsize = getattr(dtype, "itemsize", None) or np.dtype(trt.nptype(dtype)).itemsize
    return int(count * itemsize) if itemsize >= 1 else (count + 1) // 2
