"""The peer of submit_to_plan: a script that loads TensorRT-RTX, builds one plan and writes it.

python direct_build.py MODEL PLAN CAPABILITY WORKSPACE_BYTES
"""

from __future__ import annotations

import sys
from pathlib import Path

import tensorrt_rtx as trt


def main(model: str, plan: str, capability: str, workspace_bytes: str) -> None:
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(model):
        raise SystemExit(f"{model}: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(workspace_bytes))
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise SystemExit("the builder refused the model")
    Path(plan).write_bytes(serialized)


if __name__ == "__main__":
    main(*sys.argv[1:])
