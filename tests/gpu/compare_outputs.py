"""Runs a plan on saved inputs and compares with saved outputs.

    python compare_outputs.py PLAN INPUTS_AND_OUTPUTS.npz

Prints {"max_abs_error", "relative_error"}: the latter is the error's norm over the output's.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import tensorrt as trt

from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm_worker.tensorrt.benchmark import make_context
from trtfarm_worker.tensorrt.buffers import Buffers
from trtfarm_worker.tensorrt.cuda import Cuda


def main() -> None:
    plan, saved = Path(sys.argv[1]), np.load(sys.argv[2])
    cuda = Cuda()
    cuda("Free", 0)
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan.read_bytes())
    context = make_context(engine, cuda, BenchmarkOptions(shapes={"input": saved["input"].shape}))
    buffers = Buffers(trt, cuda, engine, context)
    kind = cuda.api.cudaMemcpyKind.cudaMemcpyDefault
    (device, host, size), *_ = buffers.inputs
    data = np.ascontiguousarray(saved["input"], dtype=np.float32)
    ctypes.memmove(host, data.ctypes.data, data.nbytes)
    cuda("Memcpy", device, host, size, kind)
    stream = cuda("StreamCreate")
    context.execute_async_v3(int(stream))
    cuda("StreamSynchronize", stream)
    (device, host, size), *_ = buffers.outputs
    cuda("Memcpy", host, device, size, kind)
    expected = saved["output"]
    got = np.frombuffer((ctypes.c_char * expected.nbytes).from_address(host), np.float32)
    difference = got.reshape(expected.shape) - expected
    print(
        json.dumps(
            {
                "max_abs_error": float(np.abs(difference).max()),
                "relative_error": float(np.linalg.norm(difference) / np.linalg.norm(expected)),
            }
        )
    )


if __name__ == "__main__":
    main()
