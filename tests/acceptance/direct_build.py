"""What a person would write without trtfarm: one build with TensorRT-RTX's own API, in a fresh process.

python direct_build.py MODEL PLAN OPTIONS_AS_JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def build(model: str, options: dict[str, Any]) -> bytes:
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(model), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    if options.get("detailed"):
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.get("no_tf32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if workspace_mib := options.get("workspace_mib"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib * 2**20)
    for name, (low, best, high) in options.get("profile", {}).items():
        profile = builder.create_optimization_profile()
        profile.set_shape(name, low, best, high)
        config.add_optimization_profile(profile)
    return bytes(builder.build_serialized_network(network, config))


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(build(sys.argv[1], json.loads(sys.argv[3])))
